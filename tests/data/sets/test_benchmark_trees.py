"""BTAD, VisA, MVTec LOCO and MVTec AD 2, in trees as published: which files stand where."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_lab.data.listing import ListingError
from anomaly_lab.data.sets.btad import BTAD
from anomaly_lab.data.sets.mvtec_ad2 import MVTecAD2
from anomaly_lab.data.sets.mvtec_loco import MVTecLOCO
from anomaly_lab.data.sets.visa import VisA
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.verbs.check import examine, table
from tests.support.data_modules import COMMON, SIZE, listed, read, ready
from tests.support.runs import checked
from tests.support.trees import ad2_tree, btad_tree, loco_tree, normal_image, visa_tree, write_png


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
    train, normal, test, _ = data.roles.values()
    assert (len(train), len(normal), *(sum(r.label == b for r in test) for b in (False, True))) == COUNTS[
        name
    ]
    assert not any(record.label or record.mask for record in train + normal)
    assert {record.defect for record in test if not record.label} == {"good"}
    assert {record.defect for record in test if record.label} == DEFECTS[name]
    assert all((record.mask is not None) == record.label for record in test)
    assert [record.label for record in test] == sorted(record.label for record in test)
    assert len({record.image for record in train + normal + test}) == len(train + normal + test)
    for record, image, mask in zip(data.test.records, data.test.images, data.test.masks, strict=True):
        assert np.array_equal(image, read(record.image))
        # The trees' defects are 240 and brighter, all else darker; JPEG moves that a little, at the edges.
        assert (mask == (image.min(axis=2) > 180)).mean() > 0.98
        assert mask.any() == record.label


@pytest.mark.parametrize("name", TREES)
def test_the_check_finds_nothing_wrong_but_the_few_images(name, tmp_path):
    module, tree = TREES[name]
    looks, findings = examine(module(tree(tmp_path)))
    assert {finding.text for finding in findings} == {"only 6 images to train on"}
    rows = [line.split() for line in table(looks)]
    assert {row[1]: (row[2], row[3]) for row in rows if row[0] == "test" and row[1] != "good"} == {
        defect: (count, count)
        for defect in DEFECTS[name]
        for count in ("2" if name == "mvtec_loco" else "3",)
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


@pytest.mark.parametrize(
    ("name", "missing"), [(name, part) for name, parts in MISSING.items() for part in parts]
)
def test_a_missing_folder_is_named(name, missing, tmp_path):
    module, tree = TREES[name]
    with pytest.raises(DataError, match=r"nowhere: no such folder; give data\.root=FOLDER"):
        listed(module(tmp_path / "nowhere"))
    tree(tmp_path)
    shutil.rmtree(tmp_path / missing)
    with pytest.raises(DataError, match=f"{missing}: no such folder"):
        listed(module(tmp_path))


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
    found = checked("data=btad", "data.category=01")
    assert found.leaves
    assert found.config["data"]["category"] == "01"
    with pytest.raises(
        ConfigError, match=r"data\.category must be one of 01, 02, 03, not 1; did you mean 01\?"
    ):
        checked("data=btad", "data.category=1")


def test_masks_of_btad_that_do_not_fit(tmp_path):
    masks = btad_tree(tmp_path) / "01/ground_truth/ko"
    shutil.copy(masks / "000.png", masks / "000.bmp")
    with pytest.raises(ListingError, match=r"000\.png: is a mask beside 000\.bmp; one image takes one mask"):
        listed(btad(tmp_path))
    (masks / "000.bmp").unlink()
    (masks / "001.png").rename(masks / "901.png")
    with pytest.raises(ListingError, match=r"901\.png: is a mask of 0 images named 901; one"):
        listed(btad(tmp_path))
    (masks / "901.png").unlink()
    assert btad(tmp_path).unmasked() == 1
    write_png(masks / "002.png", np.zeros(SIZE, bool))
    assert "1 of 3 anomalous images have a mask in which no pixel is anomalous" in {
        finding.text for finding in examine(btad(tmp_path))[1] if finding.level == "problem"
    }


def test_the_private_images_of_ad2_stand_in_no_split(tmp_path):
    data = ad2(ad2_tree(tmp_path))
    listed = [record.image for records in data.roles.values() for record in records]
    assert len(list((tmp_path / "can").glob("test_private*/*.png"))) == 4
    assert not any(
        part.startswith("test_private") for file in listed for part in file.relative_to(tmp_path).parts
    )
    assert {file.parent.parent.name for file in listed if file.parent.name == "bad"} == {"test_public"}
    write_png(tmp_path / "can/test_public/ground_truth/bad/007_mask.png", np.ones(SIZE, bool))
    with pytest.raises(ListingError, match=r"007_mask\.png: is a mask of 0 images named 007"):
        data.records("test")
