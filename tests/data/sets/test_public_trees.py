"""MPDD, magnetic tiles, both Kolektor sets, zippers: which files stand where, in trees as published."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, drawn
from anomaly_lab.data.sets.kolektor import Kolektor
from anomaly_lab.data.sets.magnetic_tile import MagneticTile
from anomaly_lab.data.sets.mpdd import MPDD
from anomaly_lab.data.sets.zipper import Zipper
from anomaly_lab.errors import ConfigError, DataError
from tests.support.data_modules import COMMON, SIZE, listed, read, ready
from tests.support.trees import (
    kolektor_tree,
    magnetic_tile_tree,
    mvtec_tree,
    normal_image,
    write_png,
    zipper_tree,
)


def mpdd(root: Path, **changes: Any) -> MPDD:
    return MPDD(**{**COMMON, "root": str(root), "category": "connector", **changes})


def tiles(root: Path, **changes: Any) -> MagneticTile:
    return MagneticTile(
        **{**COMMON, "root": str(root), "category": "magnetic_tile", "test_share": 0.3, **changes}
    )


def kolektor(root: Path, **changes: Any) -> Kolektor:
    own = {"category": "KolektorSDD", "test_share": 0.4, "image_size": (48, 40)}
    return Kolektor(**{**COMMON, "root": str(root), **own, **changes})


def kolektor2(root: Path, **changes: Any) -> Kolektor:
    return kolektor(root, category="KolektorSDD2", **changes)


def zipper(root: Path, **changes: Any) -> Zipper:
    return Zipper(**{**COMMON, "root": str(root), "category": "zipper_1", **changes})


TREES = {
    "mpdd": (mpdd, lambda root: mvtec_tree(root, "connector")),
    "magnetic_tile": (tiles, magnetic_tile_tree),
    "KolektorSDD": (kolektor, kolektor_tree),
    "KolektorSDD2": (kolektor2, kolektor_tree),
    "zipper": (zipper, zipper_tree),
}
# Images for training, good and defective ones for testing, masks; counted by hand from the trees.
COUNTS = {
    "mpdd": (6, 3, 3, 3),
    "magnetic_tile": (24, 12, 10, 10),  # 6 tiles of 6, of which round(0.3 * 6) = 2 are drawn
    "KolektorSDD": (9, 6, 5, 5),  # 5 parts of 3 good surfaces and a defective one; 2 drawn
    "KolektorSDD2": (6, 3, 1, 1),  # two defective training images left out
    "zipper": (4, 3, 2, 0),
}


@pytest.mark.parametrize("name", TREES)
def test_every_file_stands_where_it_belongs_and_can_be_read(name, tmp_path):
    module, tree = TREES[name]
    data = module(tree(tmp_path))
    train, test = data.records("train"), data.records("test")
    assert data.records("validation") == []
    masked = [record for record in test if record.mask]
    assert (len(train), *(sum(r.label == b for r in test) for b in (False, True)), len(masked)) == COUNTS[
        name
    ]
    assert not any(record.label or record.mask for record in train)
    assert {record.defect == "good" for record in train + test if not record.label} == {True}
    assert "good" not in {record.defect for record in test if record.label}
    assert all(record.label for record in masked)
    images = [record.image for record in train + test]
    assert len(set(images)) == len(images)
    assert module(tmp_path, seed=99).records("train") == train == sorted(train)
    assert [record.label for record in test] == sorted(record.label for record in test)
    ready(data)
    assert len(data.train.images) == len(train)
    for record, image, mask in zip(data.test.records, data.test.images, data.test.masks, strict=True):
        assert np.array_equal(image, read(record.image))
        # The trees' defects are 240 and brighter, all else darker; JPEG moves that a little, at the edges.
        assert (mask == (image.min(axis=2) > 180)).mean() > 0.98 or not record.mask
        assert mask.any() == (record.mask is not None)


@pytest.mark.parametrize("name", TREES)
def test_a_missing_folder_is_named(name, tmp_path):
    module, tree = TREES[name]
    with pytest.raises(DataError, match=r"nowhere: no such folder; give data\.root=FOLDER"):
        listed(module(tmp_path / "nowhere"))
    tree(tmp_path)
    missing = {
        "mpdd": "connector/train/good",
        "magnetic_tile": "MT_Fray/Imgs",
        "KolektorSDD": "KolektorSDD",
        "KolektorSDD2": "KolektorSDD2/test",
        "zipper": "zipper_1/test/defective",
    }[name]
    shutil.rmtree(tmp_path / missing)
    with pytest.raises(DataError, match=f"{missing}: no such folder"):
        listed(module(tmp_path))


def test_mpdd_names_a_mask_that_fits_no_image(tmp_path):
    root = mvtec_tree(tmp_path, "connector")
    write_png(root / "connector/ground_truth/scratch/9_mask.png", np.ones(SIZE, bool))
    with pytest.raises(ListingError, match=r"9_mask\.png: is a mask of 0 images named 9"):
        listed(mpdd(root))


def test_masks_of_zippers_cannot_be_required(tmp_path):
    data = zipper(zipper_tree(tmp_path))
    assert data.unmasked() == 2
    with pytest.raises(DataError, match=r"has no mask \(2 such images\)"):
        ready(zipper(tmp_path, masks="required"))


# Magnetic tiles


def numbers(data: AnomalyDataModule, split: str) -> set[int]:
    return {int(r.image.stem.split("_")[-1]) for r in data.records(split) if not r.label}


def test_all_exposures_of_a_tile_stand_on_one_side(tmp_path):
    root = magnetic_tile_tree(tmp_path, tiles=20)
    free = root / "MT_Free/Imgs"
    # a step of 532, as the largest one in the data
    shutil.move(free / "exp6_num_7060.jpg", free / "exp6_num_7580.jpg")
    shares = {}
    for share in (0.1, 0.3, 0.5):
        data = tiles(root, test_share=share)
        train, test = ({n // 1000 for n in numbers(data, split)} for split in ("train", "test"))
        assert train | test == set(range(20))
        assert not train & test
        assert len(test) == round(20 * share)
        shares[share] = test
    assert shares[0.1] < shares[0.3] < shares[0.5]
    assert shares[0.3] != set(range(6))  # not the first ones


def test_good_exposures_of_a_defective_tile_are_no_training_images(tmp_path):
    root = magnetic_tile_tree(tmp_path, tiles=10)
    kept = min(numbers(tiles(root), "train"))
    for suffix in (".jpg", ".png"):
        shutil.move(
            root / f"MT_Fray/Imgs/exp1_num_90006{suffix}",
            root / f"MT_Fray/Imgs/exp1_num_{kept + 150}{suffix}",
        )
    train, test = numbers(tiles(root), "train"), numbers(tiles(root), "test")
    assert not {kept + 12 * exposure for exposure in range(6)} & train  # the last is 90 away, the first 150
    assert {kept + 12 * exposure for exposure in range(6)} <= test
    assert len(test) == 6 * (1 + 3)  # round(0.3 * 9) of the others


def test_files_of_magnetic_tiles_that_do_not_fit(tmp_path):
    root = magnetic_tile_tree(tmp_path)
    uneven = root / "MT_Uneven/Imgs"
    for suffix in (".jpg", ".png"):
        shutil.copy(uneven / f"exp1_num_90008{suffix}", uneven / f"exp3_num_45042{suffix}")
    assert "exp3_num_45042" not in {record.image.stem for record in tiles(root).records("test")}
    (uneven / "exp1_num_90008.jpg").unlink()
    with pytest.raises(
        ListingError, match=r"exp1_num_90008\.png: is a mask of 0 images named exp1_num_90008; one"
    ):
        listed(tiles(root))
    write_png(uneven / "exp1_num_90008.jpg", normal_image(SIZE, 1))
    (uneven / "exp1_num_90008.png").unlink()
    assert tiles(root).unmasked() == 1
    write_png(root / "MT_Free/Imgs/tile7.jpg", normal_image(SIZE, 1))
    with pytest.raises(DataError, match=r"tile7\.jpg: is not named expE_num_N"):
        listed(tiles(root))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
@pytest.mark.parametrize("module", [tiles, kolektor])
def test_a_share_of_none_or_all_is_an_error(module, share, tmp_path):
    kolektor_tree(magnetic_tile_tree(tmp_path))
    with pytest.raises(ConfigError, match=r"data\.test_share: .* give a share in \(0, 1\)"):
        listed(module(tmp_path, test_share=share))


def test_the_draw_follows_the_names_alone():
    names = [f"tile{i:02}" for i in range(40)]
    first = drawn(names, 0.3)
    assert first == drawn(reversed(names), 0.3) != set(names[:12])
    assert len(first) == 12
    assert len(drawn([*names, "another"], 0.3) ^ first) <= 2  # one comes, one may go
    assert len(drawn(names[:2], 0.1)) == 1


# Kolektor


def test_good_surfaces_of_a_part_stand_on_one_side_and_defects_are_for_testing(tmp_path):
    root = kolektor_tree(tmp_path, parts=20)
    (root / "KolektorSDD/notes").mkdir()  # no part
    data = kolektor(root)
    train = {record.image.parent.name for record in data.records("train")}
    test = {record.image.parent.name for record in data.records("test") if not record.label}
    bad = [record for record in data.records("test") if record.label]
    assert len(test) == 8
    assert not train & test
    assert train | test == {record.image.parent.name for record in bad} == {f"kos{i:02}" for i in range(20)}
    assert {record.image.name for record in bad} == {"Part2.jpg"}
    assert all(record.mask == record.image.with_name("Part2_label.bmp") for record in bad)


def test_defective_training_images_are_left_out_and_counted(tmp_path, caplog):
    data = kolektor2(kolektor_tree(tmp_path))
    with caplog.at_level(logging.INFO):
        train = data.records("train")
    assert [record.image.stem for record in train] == ["10000", "10001", "10003", "10004", "10005", "10007"]
    assert "KolektorSDD2/train: 2 defective training images are left out" in caplog.text
    assert [(r.image.stem, r.mask and r.mask.name) for r in data.records("test") if r.label] == [
        ("10010", "10010_GT.png")
    ]


def test_the_archives_stray_copies_are_no_images(tmp_path):
    root = kolektor_tree(tmp_path)
    before = kolektor2(root).records("train")
    for name in ("10001", "10001_GT"):
        shutil.copy(root / f"KolektorSDD2/train/{name}.png", root / f"KolektorSDD2/train/{name} (copy).png")
    assert kolektor2(root).records("train") == before


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "1"])
def test_one_pixel_of_a_mask_makes_an_image_anomalous(mode, value, tmp_path):
    root = kolektor_tree(tmp_path)
    mask = Image.new("L", (40, 48))
    mask.putpixel((39, 0), value)
    mask = mask.point(lambda v: 255 * (v > 0)).convert("1") if mode == "1" else mask.convert(mode)
    mask.save(root / "KolektorSDD/kos00/Part0_label.bmp")
    anomalous = [record.image for record in kolektor(root).records("test") if record.label]
    assert root / "KolektorSDD/kos00/Part0.jpg" in anomalous
    assert len(anomalous) == 6


def test_a_mask_without_a_pixel_is_black_not_transparent(tmp_path):
    root = kolektor_tree(tmp_path)
    before = kolektor2(root).records("test")
    Image.new("RGBA", (40, 48), (0, 0, 0, 255)).save(root / "KolektorSDD2/test/10008_GT.png")
    assert kolektor2(root).records("test") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "remove KolektorSDD/kos01/Part3_label.bmp",
            r"Part3\.jpg: has no mask Part3_label\.bmp beside it; add it",
        ),
        ("remove KolektorSDD/kos01/Part3.jpg", r"Part3_label\.bmp: is a mask of 0 images named Part3"),
        ("copy KolektorSDD/kos01/Part3.png", r"Part3_label\.bmp: is a mask of 2 images named Part3"),
        ("spoil KolektorSDD/kos01/Part3_label.bmp", r"Part3_label\.bmp: cannot be read as a mask"),
    ],
)
def test_masks_that_do_not_fit_are_named(change, message, tmp_path):
    root = kolektor_tree(tmp_path)
    what, name = change.split()
    if what == "copy":
        write_png(root / name, normal_image((48, 40), 7))
    elif what == "remove":
        (root / name).unlink()
    else:
        (root / name).write_bytes(b"BM, but no image")
    for split in ("train", "test"):
        with pytest.raises(DataError, match=message) as caught:
            kolektor(root).records(split)
        assert "\n" not in str(caught.value)
