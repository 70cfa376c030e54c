"""What lies beside the images: hidden files are no data, and what looks like an image is said."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.sets.btad import BTAD
from anomaly_lab.data.sets.kolektor import Kolektor
from anomaly_lab.data.sets.magnetic_tile import MagneticTile
from anomaly_lab.data.sets.mvtec_ad2 import MVTecAD2
from anomaly_lab.data.sets.mvtec_loco import MVTecLOCO
from anomaly_lab.data.sets.visa import VisA
from anomaly_lab.data.sets.zipper import Zipper
from anomaly_lab.errors import DataError
from anomaly_lab.verbs.check import examine
from tests.support import trees
from tests.support.data_modules import COMMON, SIZE, listed, mvtec, parts, read
from tests.support.runs import on_tree, ran
from tests.support.trees import folder_tree, mvtec_tree, normal_image, write_png

SETS = [
    (mvtec_tree, mvtec),
    (folder_tree, parts),
    (trees.btad_tree, lambda root: BTAD(**COMMON | {"root": str(root), "category": "01"})),
    (trees.zipper_tree, lambda root: Zipper(**COMMON | {"root": str(root), "category": "zipper_1"})),
    (trees.loco_tree, lambda root: MVTecLOCO(**COMMON | {"root": str(root), "category": "pushpins"})),
    (trees.ad2_tree, lambda root: MVTecAD2(**COMMON | {"root": str(root), "category": "can"})),
    (trees.visa_tree, lambda root: VisA(**COMMON | {"root": str(root), "category": "candle"})),
    (
        trees.kolektor_tree,
        lambda root: Kolektor(**COMMON | {"root": str(root), "category": "KolektorSDD", "test_share": 0.3}),
    ),
    (
        trees.magnetic_tile_tree,
        lambda root: MagneticTile(
            **COMMON | {"root": str(root), "category": "magnetic_tile", "test_share": 0.3}
        ),
    ),
]


def said(data: AnomalyDataModule) -> str:
    assert listed(data)
    return data.left_out.text


@pytest.mark.parametrize(("tree", "made"), SETS)
def test_hidden_folders_and_files_are_no_data_and_need_no_word(tree, made, tmp_path):
    root = tree(tmp_path)
    before = listed(made(root))
    folders = [path for path in root.rglob("*") if path.is_dir()]
    folders = [
        path for path in folders if path.parent.parent.name != "ground_truth"
    ]  # all masks of one image
    image = next(path for path in root.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".bmp"})
    for folder in [root, *folders]:
        for name in (".ipynb_checkpoints/0-checkpoint.png", "._000.png", ".DS_Store", "Thumbs.db"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(image.read_bytes())
    data = made(root)
    assert listed(data) == before
    assert data.left_out == ("", [])


@pytest.mark.parametrize(("tree", "made"), SETS)
def test_a_sound_tree_leaves_nothing_out(tree, made, tmp_path):
    assert said(made(tree(tmp_path))) == ""


def test_images_that_are_not_taken_are_counted_and_named(tmp_path):
    root = mvtec_tree(tmp_path)
    top = root / "part"
    image = normal_image(SIZE, 90)
    for name in ("test/scratch/1.heic", "test/scratch/2.HEIC", "train/good/3.pgm", "test/scratch/notes.txt"):
        (top / name).write_bytes(b"x")
    for name in ("deep/cam1/0.png", "deep/cam2/1.png", "deep/cam2/x/2.jpg"):
        write_png(top / "test" / name, image)
    data = mvtec(root)
    assert {record.defect for record in listed(data)["test"]} == {"good", "scratch"}
    assert data.left_out.text == "3 images in inner folders, 2 HEIC files, 1 PGM file"
    assert len(data.left_out.files) == 6
    (warning,) = (finding for finding in examine(data)[1] if finding.files)
    assert warning.text.startswith("left out of the data set: 3 images in inner folders, 2 HEIC files, 1 PGM")
    assert f"{top}/test/deep/cam2/x/2.jpg" in warning.files


def test_what_is_left_out_is_said_beside_the_masks_that_miss_it(tmp_path):
    root = mvtec_tree(tmp_path)
    image = root / "part/test/scratch/001.png"
    image.rename(image.with_suffix(".heic"))
    texts = [finding.text for finding in examine(mvtec(root))[1]]
    assert "is a mask of 0 images named 001" in texts[0]
    assert texts[1].startswith("left out of the data set: 1 HEIC file;")


def test_a_run_says_what_it_left_out(tmp_path):
    root = mvtec_tree(tmp_path / "data")
    (root / "part/train/good/0.jp2").write_bytes(b"x")
    how = ["model=nearest", "data.image_size=16", "evaluation.bootstrap=0", "evaluation.overlays=0"]
    _, run = ran(tmp_path, *how, *on_tree(root))
    assert "left out of the data set: 1 JP2 file; only PNG, JPEG, " in (run / "run.log").read_text()


def test_where_nothing_is_left_the_line_says_why(tmp_path):
    root = mvtec_tree(tmp_path)
    for file in (root / "part/train/good").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match="category part has no training images; left out: 6 HEIC files"):
        listed(mvtec(root))


def test_listed_folders_inside_listed_ones_are_not_left_out(tmp_path):
    root = folder_tree(tmp_path)
    (root / "bad_dent").rename(root / "good/bad")
    assert said(parts(root, abnormal=["good/bad"], mask_folder="masks/bad_dent")) == ""


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF"])
def test_a_jpeg_by_any_of_its_names_is_an_image(tmp_path, suffix):
    root = mvtec_tree(tmp_path)
    Image.fromarray(normal_image(SIZE, 91)).save(root / f"part/train/good/a{suffix}", format="JPEG")
    data = mvtec(root)
    data.setup("fit")
    assert said(data) == ""
    assert (data.train.images[-1] == read(root / f"part/train/good/a{suffix}")).all()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


@pytest.mark.parametrize("make", [pipe, device, listening])
@pytest.mark.parametrize("place", ["train/good", "test/scratch", "ground_truth/scratch"])
def test_only_files_are_read(tmp_path, make, place, monkeypatch):
    root = mvtec_tree(tmp_path)
    monkeypatch.chdir(root / "part" / place)  # the path of a socket is short
    make(Path("x.png"))
    data = mvtec(root)
    data.setup("fit")
    assert (len(data.train.records), len(data.test.records)) == (6, 6)
    assert data.left_out == ("1 pipe or device", [f"{root}/part/{place}/x.png"])
    assert "1 pipe or device" in examine(data)[1][0].text


def test_a_link_to_a_file_is_an_image_and_one_that_leads_nowhere_is_named(tmp_path):
    root = mvtec_tree(tmp_path)
    good = root / "part/train/good"
    (good / "a.png").symlink_to(good / "000.png")
    assert len(listed(mvtec(root))["train"]) == 7
    (good / "b.png").symlink_to(good / "nowhere.png")
    with pytest.raises(DataError, match=r"b\.png: No such file"):
        mvtec(root).setup("fit")
