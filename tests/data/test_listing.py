"""Which files a data set lists, in MVTec AD's layout and in folders of one's own; what it says of misfits."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.data.listing import ListingError
from anomaly_lab.errors import ConfigError, DataError
from tests.support.data_modules import SIZE, listed, mvtec, parts, ready
from tests.support.trees import folder_tree, mvtec_tree, normal_image, write_png


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Six training images, three good and three defective ones; only to be read."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"))


def test_masks_are_paired_by_stem(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "copy")
    bad, masks = root / "part/test/scratch", root / "part/ground_truth/scratch"
    for old, new in (("000", "9"), ("001", "10"), ("002", "a_mask_b")):
        (bad / f"{old}.png").rename(bad / f"{new}.png")
        (masks / f"{old}_mask.png").rename(masks / f"{new}{'' if new == '10' else '_mask'}.png")
    (masks / "9_mask.png").unlink()
    data = mvtec(root)
    found = {
        record.image.stem: record.mask and record.mask.name for record in data.records("test") if record.label
    }
    assert found == {"9": None, "10": "10.png", "a_mask_b": "a_mask_b_mask.png"}
    assert data.unmasked() == 1
    with pytest.raises(
        DataError, match=r"9\.png: has no mask \(1 such images\); add it or set data\.masks=auto"
    ):
        mvtec(root, masks="required").setup("fit")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("ground_truth/scratch/001.png", "001_mask.png"),
        ("ground_truth/scratch/007_mask.png", "of 0 images named 007"),
        ("test/scratch/001.jpg", "of 2 images named 001"),
    ],
)
def test_a_mask_that_fits_not_one_image_is_named(tree, tmp_path, extra, named):
    root = shutil.copytree(tree, tmp_path / "copy")
    write_png(root / "part" / extra, normal_image(SIZE, 9))
    with pytest.raises(ListingError, match=named) as caught:
        listed(mvtec(root))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    write_png(root / "part/ground_truth/scratch/008_mask.png", np.ones(SIZE, bool))
    with pytest.raises(ListingError, match=r"\(1 more: python -m anomaly_lab check lists all\)"):
        listed(mvtec(root))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "nowhere"}, "nowhere: no such folder; give data.root=FOLDER"),
        ({"category": "prat"}, "prat: no such folder; there are: part"),
        ({"remove": "train/good"}, "train/good: no such folder"),
        ({"remove": "test"}, "test: no such folder; there are: ground_truth, train, validation"),
        ({"empty": "train/good"}, "category part has no training images"),
        ({"empty": "test"}, "category part has no test images"),
    ],
)
def test_what_is_missing_is_named(tmp_path, change, message):
    root = mvtec_tree(tmp_path, validation=1)
    for what in change.keys() & {"remove", "empty"}:
        shutil.rmtree(root / "part" / change[what])
        if what == "empty":
            (root / "part" / change[what]).mkdir()
    with pytest.raises(DataError, match=message):
        listed(mvtec(root / change.get("root", ""), category=change.get("category", "part")))


def test_folders(tmp_path):
    data = parts(folder_tree(tmp_path, good=10))
    train, test = data.records("train"), data.records("test")
    assert data.records("validation") == []
    good = {record for record in test if not record.label}
    assert (len(train), len(good), len(test)) == (7, 3, 6)
    assert {record.image.name for record in (*train, *good)} == {f"{i:03}.png" for i in range(10)}
    for record in test[3:]:
        assert (record.label, record.defect) == (True, "bad_dent")
        assert record.mask == tmp_path / "masks/bad_dent" / record.image.name
    assert ready(data).test.masks.any(axis=(1, 2)).tolist() == [False] * 3 + [True] * 3


def test_the_draw_of_the_test_images_is_stable(tmp_path):
    def drawn(root: Path, seed: int) -> set[str]:
        return {record.image.name for record in parts(root, seed=seed).records("test") if not record.label}

    root = folder_tree(tmp_path / "one", good=40)
    first = drawn(root, 0)
    assert first == drawn(root, 1) == drawn(shutil.copytree(root, tmp_path / "two"), 0)
    assert first != {f"{i:03}.png" for i in range(12)}
    for i in range(40, 60):
        before = drawn(root, 0)
        write_png(root / f"good/{i:03}.png", normal_image(SIZE, i))
        after = drawn(root, 0)
        assert len(after) == round(0.3 * (i + 1))
        assert len(before - after) <= 1
        assert len(after - before) <= 1


def test_listed_test_images_and_no_defects_yet(tmp_path):
    root = folder_tree(tmp_path, good=4)
    write_png(root / "later/000.png", normal_image(SIZE, 99))
    roles = parts(root, normal_test=["later"], abnormal=[], mask_folder=None, test_share=0.0).roles
    assert [len(records) for records in roles.values()] == [4, 0, 1, 0]
    with pytest.raises(ConfigError, match=r"data\.test_share: 0\.0 leaves no good images for testing"):
        listed(parts(root, test_share=0.0))


def test_masks_of_folders_may_lie_together_or_by_name(tmp_path):
    root = folder_tree(tmp_path)
    (root / "bad_dent").rename(root / "bad_dents")
    (root / "defects").mkdir()
    (root / "bad_dents").rename(root / "defects/bad_dent")
    write_png(root / "cut/c.png", normal_image(SIZE, 50))
    changes = {"abnormal": ["defects/bad_dent", "cut"]}
    by_name = parts(root, **changes).records("test")
    together = parts(root, **changes, mask_folder="masks/bad_dent").records("test")
    for records in (by_name, together):
        found = [(r.defect, r.image.stem, r.mask and r.mask.stem) for r in records if r.label]
        assert found == [("defects/bad_dent", s, s) for s in ("000", "001", "002")] + [("cut", "c", None)]
    write_png(root / "masks/bad_dent/d_mask.png", np.ones(SIZE, bool))
    for folder in ("masks", "masks/bad_dent"):
        with pytest.raises(ListingError, match="of 0 images named d"):
            parts(root, **changes, mask_folder=folder).records("test")
    with pytest.raises(ListingError, match=r"has no masks of the images in data\.abnormal"):
        parts(root, abnormal=["cut"], mask_folder="defects").records("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normal_train": ["god"]}, "god: no such folder; there are: bad_dent, good, masks"),
        ({"abnormal": ["bad_dent", "masks"]}, "masks: has no images; list its folders instead: bad_dent"),
        (
            {"abnormal": ["good"]},
            r"000\.png: is listed twice in data\.normal_train, normal_test and abnormal",
        ),
        ({"normal_test": ["./good"]}, "is listed twice"),
        ({"mask_folder": "mask"}, "mask: no such folder; there are: bad_dent, good, masks"),
    ],
)
def test_wrong_folders_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        listed(parts(folder_tree(tmp_path), **changes))


def test_a_link_to_a_listed_image_is_found(tmp_path):
    root = folder_tree(tmp_path)
    (root / "bad_dent/link.png").symlink_to(root / "good/003.png")
    with pytest.raises(DataError, match=r"link\.png: is listed twice.*003\.png"):
        listed(parts(root))
