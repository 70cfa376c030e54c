"""BTAD, VisA, MVTec LOCO and MVTec AD 2: which files stand where, masks of several files, and a csv as the split."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomaly_lab import config
from anomaly_lab.check import examine, table
from anomaly_lab.data.btad import BTAD
from anomaly_lab.data.content import content_hash
from anomaly_lab.data.images import read_mask
from anomaly_lab.data.mvtec_ad2 import MVTecAD2
from anomaly_lab.data.mvtec_loco import MVTecLOCO
from anomaly_lab.data.tree import ListingError
from anomaly_lab.data.visa import VisA
from anomaly_lab.errors import ConfigError, DataError
from tests.data_modules import COMMON, SIZE, read, ready
from tests.runs import composed, ran
from tests.trees import ad2_tree, btad_tree, loco_tree, normal_image, visa_tree, write_png


def btad(root: Path, **changes: Any) -> BTAD:
    return BTAD(**{**COMMON, "root": str(root), "category": "01", **changes})


def visa(root: Path, **changes: Any) -> VisA:
    return VisA(**{**COMMON, "root": str(root), "category": "candle", **changes})


def loco(root: Path, **changes: Any) -> MVTecLOCO:
    return MVTecLOCO(**{**COMMON, "root": str(root), "category": "pushpins", **changes})


def ad2(root: Path, **changes: Any) -> MVTecAD2:
    return MVTecAD2(**{**COMMON, "root": str(root), "category": "can", **changes})


TREES = {
    "btad": (btad, btad_tree),
    "visa": (visa, visa_tree),
    "mvtec_loco": (loco, loco_tree),
    "mvtec_ad2": (ad2, ad2_tree),
}
# Images for training, for the threshold, good and defective ones for testing; counted by hand from the trees.
COUNTS = {"btad": (6, 0, 3, 3), "visa": (6, 0, 3, 3), "mvtec_loco": (6, 3, 3, 4), "mvtec_ad2": (6, 3, 3, 3)}
DEFECTS = {"btad": {"ko"}, "visa": {"anomaly"}, "mvtec_ad2": {"bad"}}
DEFECTS["mvtec_loco"] = {"logical_anomalies", "structural_anomalies"}


@pytest.mark.parametrize("name", TREES)
def test_every_file_stands_where_it_belongs_and_can_be_read(name, tmp_path):
    module, tree = TREES[name]
    data = module(tree(tmp_path), masks="required")
    ready(data)
    train, normal, test = data.splits().values()
    assert (len(train), len(normal), *(sum(r.label == b for r in test) for b in (False, True))) == COUNTS[name]
    assert not any(record.label or record.mask for record in train + normal)
    assert {record.defect for record in test if not record.label} == {"good"}
    assert {record.defect for record in test if record.label} == DEFECTS[name]
    assert all((record.mask is not None) == record.label for record in test)
    assert [record.label for record in test] == sorted(record.label for record in test)
    assert len({record.image for record in train + normal + test}) == len(train + normal + test)
    for record, image, mask in zip(data.test.records, data.test.images, data.test.masks, strict=True):
        assert np.array_equal(image, read(record.image))
        # The trees' defects are 240 and brighter, all else darker; JPEG moves that a little, most at the edges.
        assert (mask == (image.min(axis=2) > 180)).mean() > 0.98
        assert mask.any() == record.label


@pytest.mark.parametrize("name", TREES)
def test_the_check_finds_nothing_wrong_but_the_few_images(name, tmp_path):
    module, tree = TREES[name]
    looks, findings = examine(module(tree(tmp_path)))
    assert {finding.text for finding in findings} == {"only 6 images to train on"}
    rows = [line.split() for line in table(looks)]
    assert {row[1]: (row[2], row[3]) for row in rows if row[0] == "test" and row[1] != "good"} == {
        defect: (count, count) for defect in DEFECTS[name] for count in ("2" if name == "mvtec_loco" else "3",)
    }


MISSING = {
    "btad": ("01/test/ko", "01/train/ok"),
    "visa": ("candle",),
    "mvtec_loco": (
        "pushpins/validation/good",
        "pushpins/ground_truth/logical_anomalies",
        "pushpins/test/structural_anomalies",
    ),
    "mvtec_ad2": ("can/validation/good", "can/test_public/bad", "can/test_public"),
}


@pytest.mark.parametrize(("name", "missing"), [(name, part) for name, parts in MISSING.items() for part in parts])
def test_a_missing_folder_is_named(name, missing, tmp_path):
    module, tree = TREES[name]
    with pytest.raises(DataError, match=r"nowhere: no such folder; give data\.root=FOLDER"):
        module(tmp_path / "nowhere").splits()
    tree(tmp_path)
    shutil.rmtree(tmp_path / missing)
    with pytest.raises(DataError, match=f"{missing}: no such folder"):
        module(tmp_path).splits()


# BTAD and MVTec AD 2


@pytest.mark.parametrize(
    ("category", "image", "mask"), [("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")]
)
def test_btad_in_its_formats(category, image, mask, tmp_path):
    data = btad(btad_tree(tmp_path, category), category=category)
    pairs = [(record.image.name, record.mask.name) for record in data.records("test") if record.label]
    assert pairs == [(f"{i:03}.{image}", f"{i:03}.{mask}") for i in range(3)]
    write_png(tmp_path / category / "train/ok/9999.png", normal_image(SIZE, 1))
    assert len(data.records("train")) == 7  # what is there counts, whatever its format


def test_the_category_is_text_on_the_command_line():
    cfg = composed("data=btad", "data.category=01")
    assert config.validate(cfg)
    assert cfg.data.category == "01"
    with pytest.raises(ConfigError, match=r"data\.category must be one of 01, 02, 03, not 1; did you mean 01\?"):
        config.validate(composed("data=btad", "data.category=1"))


def test_masks_of_btad_that_do_not_fit(tmp_path):
    masks = btad_tree(tmp_path) / "01/ground_truth/ko"
    shutil.copy(masks / "000.png", masks / "000.bmp")
    with pytest.raises(ListingError, match=r"000\.png: is a mask beside 000\.bmp; one image takes one mask"):
        btad(tmp_path).splits()
    (masks / "000.bmp").unlink()
    (masks / "001.png").rename(masks / "901.png")
    with pytest.raises(ListingError, match=r"901\.png: is a mask of 0 images named 901; one"):
        btad(tmp_path).splits()
    (masks / "901.png").unlink()
    assert btad(tmp_path).unmasked() == 1
    write_png(masks / "002.png", np.zeros(SIZE, bool))
    assert "1 of 3 anomalous images have a mask in which no pixel is anomalous" in {
        finding.text for finding in examine(btad(tmp_path))[1] if finding.level == "problem"
    }


def test_the_private_images_of_ad2_stand_in_no_split(tmp_path):
    data = ad2(ad2_tree(tmp_path))
    listed = [record.image for records in data.splits().values() for record in records]
    assert len(list((tmp_path / "can").glob("test_private*/*.png"))) == 4
    assert not any(part.startswith("test_private") for file in listed for part in file.relative_to(tmp_path).parts)
    assert {file.parent.parent.name for file in listed if file.parent.name == "bad"} == {"test_public"}
    write_png(tmp_path / "can/test_public/ground_truth/bad/007_mask.png", np.ones(SIZE, bool))
    with pytest.raises(ListingError, match=r"007_mask\.png: is a mask of 0 images named 007"):
        data.records("test")


# VisA


def test_masks_of_visa_hold_kinds_of_defect(tmp_path):
    for record in visa(visa_tree(tmp_path)).records("test")[3:]:
        values = read(record.mask)
        assert set(np.unique(values)) == {0, int(record.mask.stem) + 1, 9}
        assert np.array_equal(read_mask(record.mask, SIZE), values != 0)


def edited(root: Path, old: str, new: str) -> VisA:
    file = visa_tree(root) / "split_csv/1cls.csv"
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new).encode())
    return visa(root)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n", "  \n"),
        (",", " , "),
        ("\n", "\n\n"),
        ("object,split", "\ufeffobject,split"),
        ("pcb4,train", "gadget,train"),  # an object that is not ours is not our business
    ],
    ids=["windows", "trailing", "spaces", "blank-lines", "byte-order-mark", "unknown-object"],
)
def test_how_the_csv_is_written_does_not_matter(old, new, tmp_path):
    expected = [r._replace(image=r.image.name) for r in visa(visa_tree(tmp_path / "a")).records("test")]
    found = [r._replace(image=r.image.name) for r in edited(tmp_path / "b", old, new).records("test")]
    assert [r[0::2] for r in found] == [r[0::2] for r in expected]
    assert [r.image.stem for r in edited(tmp_path / "b", old, new).records("train")] == [
        f"{i:04}" for i in (4, 1, 0, 2, 5, 3)
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "object,split,label,image,mask",
            "object,split,image,mask",
            r"has 'object,split,image,mask' where object,split,",
        ),
        (
            "0004.JPG,\n",
            "0004.JPG\n",
            r"has 'candle,train,normal,candle/.*0004\.JPG' where object,split,label,image,mask",
        ),
        ("candle,", "Candle,", r"has no rows of candle; there are: Candle, pcb4"),
        (
            "candle,test,anomaly",
            "candle,train,anomaly",
            r"has 'candle,train,anomaly,.*000\.png' \(3 such rows\), none of",
        ),
        ("0004.JPG,\n", "0004.JPG,candle/Data/Masks/Anomaly/000.png\n", r"has 'candle,train,normal,.*\(1 such rows\)"),
        ("candle,test,normal", "candle,val,normal", r"has 'candle,val,normal,.*\(3 such rows\)"),
        (
            "Normal/0004.JPG",
            "Normal/0001.JPG",
            r"1cls\.csv: has 2 rows of candle/Data/Images/Normal/0001\.JPG; keep one",
        ),
        ("Normal/0004", "Normal/9", r"Normal/9\.JPG: is in 1cls\.csv but not there \(1 such files\); unpack"),
        ("Masks/Anomaly", "Masks/Bad", r"Bad/000\.png: is in 1cls\.csv but not there \(3 such files\); unpack"),
    ],
)
def test_a_csv_that_does_not_fit_is_an_error_of_one_line(old, new, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        edited(tmp_path, old, new).splits()
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_missing_or_is_none(tmp_path):
    file = visa_tree(tmp_path) / "split_csv/1cls.csv"
    file.write_bytes(b"\xff\xfe\x00csv")
    with pytest.raises(DataError, match=r"1cls\.csv: cannot be read as a csv file; it comes with the archive"):
        visa(tmp_path).splits()
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"1cls\.csv: has '' where object,split,label,image,mask are expected"):
        visa(tmp_path).splits()
    file.unlink()
    with pytest.raises(
        DataError, match=r"1cls\.csv: no such file; .*github\.com/amazon-science/spot-diff\. For a tree"
    ):
        visa(tmp_path).splits()


# MVTec LOCO: the folder of an image's masks is its mask


def union(folder: Path) -> np.ndarray:
    return np.any([np.array(Image.open(file)) > 0 for file in folder.iterdir()], axis=0)


def test_the_masks_of_an_image_are_joined(tmp_path):
    data = ready(loco(loco_tree(tmp_path), image_size=(20, 16)))
    rows, columns = (np.arange(20) * 2 + 1, np.arange(16) * 3 + 1)  # the nearest pixel centres of 40 and 48
    for record, small in zip(data.test.records[3:], data.test.masks[3:], strict=True):
        masks = sorted(record.mask.iterdir())
        assert len(masks) == (2 if record.defect == "logical_anomalies" else 1)
        whole = read_mask(record.mask, SIZE)
        assert np.array_equal(whole, union(record.mask))
        assert np.array_equal(small, union(record.mask)[np.ix_(rows, columns)])
        assert all(whole.sum() > read_mask(mask, SIZE).sum() for mask in masks[1:])


@pytest.mark.parametrize("resolution", ["network", "original"])
def test_a_run_on_loco_measures_the_union(resolution, tmp_path):
    root = loco_tree(tmp_path / "loco", size=(64, 80))
    joined = shutil.copytree(root / "pushpins", tmp_path / "mvtec/part")
    for folder in sorted(joined.glob("ground_truth/*/*")):  # as MVTec AD has it: one mask an image
        write_png(folder.with_name(f"{folder.name}_mask.png"), union(folder))
        shutil.rmtree(folder)
    first = shutil.copytree(root, tmp_path / "first")
    for mask in first.glob("pushpins/ground_truth/*/*/001.png"):
        mask.unlink()
    how = ["model=variation", "data.image_size=[32,40]", "trainer=debug", f"evaluation.resolution={resolution}"]
    how += ["evaluation.overlays=2", "evaluation.save_maps=true"]
    metrics, run = ran(tmp_path, *how, "data=mvtec_loco", f"data.root='{root}'", "data.category=pushpins")
    same, _ = ran(tmp_path, *how, "data=mvtec", f"data.root='{tmp_path}/mvtec'", "data.category=part")
    less, _ = ran(tmp_path, *how, "data=mvtec_loco", f"data.root='{first}'", "data.category=pushpins", "tag=less")
    assert (run / "metrics.json").is_file()
    assert {"threshold", "image_auroc", "pixel_auroc", "pixel_aupro"} <= metrics.keys()
    assert metrics == same
    assert abs(metrics["pixel_aupro"] - less["pixel_aupro"]) > 1e-3
    if resolution == "network":
        maps = np.load(run / "maps/maps.npz")
        data = ready(loco(root, image_size=(32, 40)))
        scores = np.stack([maps[name] for name in sorted(maps.files)])  # by row: 00000, 00001, ...
        assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(data.test.masks.ravel(), scores.ravel()), abs=1e-5)


def test_the_fingerprint_covers_every_mask(tmp_path):
    root = loco_tree(tmp_path)
    folder = root / "pushpins/ground_truth/logical_anomalies/001"
    before, digest = loco(root).fingerprint(), content_hash(folder)
    (folder / ".DS_Store").write_bytes(b"a finder's")
    assert loco(root).fingerprint() == before
    assert np.array_equal(read_mask(folder, SIZE), union_of_png(folder))
    changed = read(folder / "001.png")
    changed[0, 0] = 236 - changed[0, 0]
    write_png(folder / "001.png", changed)
    assert loco(root).fingerprint() != before
    assert content_hash(folder) != digest


def test_a_folder_of_masks_is_hashed_by_file(tmp_path):
    digests, two = {}, [b"x", b"y"]
    for name, parts in {"one": two, "same": two, "joined": [b"xy"], "split": [b"xy", b""], "turned": two[::-1]}.items():
        (tmp_path / name).mkdir()
        for index, part in enumerate(parts):
            (tmp_path / name / f"{index:03}.png").write_bytes(part)
        digests[name] = content_hash(tmp_path / name)
    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 4


def union_of_png(folder: Path) -> np.ndarray:
    return np.any([np.array(Image.open(file)) > 0 for file in folder.glob("*.png")], axis=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda top: (top / "test/logical_anomalies/001.png").unlink(),
            r"anomalies/001: holds the masks of 0 images named 001;",
        ),
        (
            lambda top: shutil.copy(top / "test/good/000.png", top / "test/logical_anomalies/001.bmp"),
            r"of 2 images named 001",
        ),
        (
            lambda top: write_png(top / "ground_truth/logical_anomalies/001.png", np.ones(SIZE, bool)),
            r"lies beside the folders",
        ),
        (
            lambda top: [m.unlink() for m in top.glob("ground_truth/logical_anomalies/001/*")],
            r"001: holds no mask; put",
        ),
    ],
    ids=["no-image", "two-images", "file", "empty"],
)
def test_folders_of_masks_that_do_not_fit_are_named(change, message, tmp_path):
    change(loco_tree(tmp_path) / "pushpins")
    with pytest.raises(ListingError, match=message) as caught:
        loco(tmp_path).splits()
    assert "\n" not in str(caught.value)
    assert any(finding.level == "problem" for finding in examine(loco(tmp_path))[1])


def test_an_image_of_loco_without_masks_and_a_mask_of_another_size(tmp_path):
    top = loco_tree(tmp_path) / "pushpins/ground_truth/structural_anomalies"
    shutil.rmtree(top / "000")
    assert loco(tmp_path).unmasked() == 1
    write_png(top / "001/002.png", np.ones((40, 40), bool))
    with pytest.raises(
        DataError, match=r"001/002\.png: the mask has \(height, width\) \(40, 40\) but its image \(40, 48\)"
    ):
        ready(loco(tmp_path))
    write_png(top / "001/002.png", np.zeros(SIZE, bool))
    write_png(top / "001/000.png", np.zeros(SIZE, bool))
    texts = {finding.text for finding in examine(loco(tmp_path))[1] if finding.level == "problem"}
    assert texts == {"1 of 4 anomalous images have a mask in which no pixel is anomalous"}
