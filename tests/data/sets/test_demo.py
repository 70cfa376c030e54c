"""The demo data: layout, exact masks, drawn whole or not at all, and no global statistic solves it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances

from anomaly_lab.data.sets.demo import parts as demo_parts
from anomaly_lab.data.sets.demo.parts import CATEGORIES, PARTS, render, write_demo
from anomaly_lab.errors import DataError

KINDS = [(category, kind) for category, (_, defects) in PARTS.items() for kind in defects]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "new" / "folder"
    for category in CATEGORIES:
        write_demo(root, category)
    return root


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in ("TRAIN", "GOOD", "PER_DEFECT"):
        monkeypatch.setattr(demo_parts, count, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pixels(paths: list[Path]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(paths)])


@pytest.mark.long
@pytest.mark.parametrize("category", CATEGORIES)
def test_layout_and_counts_are_those_of_mvtec(root: Path, category: str) -> None:
    folder, defects = root / category, set(PARTS[category][1])
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"train", "test", "ground_truth"}
    assert {p.name for p in (folder / "test").iterdir()} == {"good"} | defects
    assert {p.name for p in (folder / "ground_truth").iterdir()} == defects
    assert len(defects) >= 4
    assert len(list((folder / "train" / "good").iterdir())) >= 60
    assert len(list((folder / "test" / "good").iterdir())) == 20
    assert 30 <= len(list((folder / "ground_truth").glob("*/*"))) <= 40
    for defect in defects:
        stems = {p.stem for p in (folder / "test" / defect).glob("*.png")}
        assert {p.name for p in (folder / "ground_truth" / defect).iterdir()} == {
            f"{stem}_mask.png" for stem in stems
        }


@pytest.mark.long
@pytest.mark.parametrize("category", CATEGORIES)
def test_images_are_rgb_and_masks_are_small_binary_regions(root: Path, category: str) -> None:
    images, masks = (pixels(list((root / category).glob(g))) for g in ("t*/*/*.png", "ground_truth/*/*.png"))
    assert images.shape[1:] == (256, 256, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == len(images)
    assert masks.shape[1:] == (256, 256)
    assert set(np.unique(masks)) == {0, 255}
    area = (masks > 0).mean(axis=(1, 2))
    assert area.min() >= 0.002
    assert area.max() <= 0.04
    assert max(cv2.connectedComponents(mask, connectivity=8)[0] - 1 for mask in masks) <= 4


@pytest.mark.long
@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_only_the_defect_changes_the_picture_and_it_is_visible(root: Path, category: str, kind: str) -> None:
    image, clean, mask = render(category, "test", kind, 3)
    change = np.abs(image.astype(int) - clean).max(axis=2)
    assert not change[~mask].any()
    assert (change[mask] > 0).mean() > 0.9
    half = change.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert np.sort(half.ravel())[-40:].min() > 15  # 40 pixels at 128 x 128 of at least 15 grey levels
    folder = root / category
    assert np.array_equal(np.asarray(Image.open(folder / "test" / kind / "003.png")), image)
    assert np.array_equal(np.asarray(Image.open(folder / "ground_truth" / kind / "003_mask.png")) > 0, mask)


def test_a_normal_picture_has_no_mask_and_no_other_version() -> None:
    image, clean, mask = render("nut", "train", "good", 0)
    assert np.array_equal(image, clean)
    assert not mask.any()


@pytest.mark.long
@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.usefixtures("few")
def test_the_same_bytes_every_time(root: Path, tmp_path: Path, category: str) -> None:
    write_demo(tmp_path, category)
    again = contents(tmp_path / category)
    assert len(again) == 1 + 2 + 2 * len(PARTS[category][1])
    assert again.items() <= contents(root / category).items()


@pytest.mark.usefixtures("few")
def test_a_complete_folder_is_left_alone(tmp_path: Path) -> None:
    write_demo(tmp_path, "nut")
    (tmp_path / "nut" / "notes.txt").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    write_demo(tmp_path, "nut")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.usefixtures("few")
def test_two_runs_at_once_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], demo_parts.draw
    monkeypatch.setattr(
        demo_parts, "draw", lambda folder, category: (drawn.append(category), draw(folder, category))
    )
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write_demo, [tmp_path] * 3, ["nut"] * 3))
    assert drawn == ["nut"]
    assert len(contents(tmp_path / "nut")) == 13


@pytest.mark.usefixtures("few")
def test_pictures_are_drawn_two_at_a_time_on_two_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2, timeout=20)  # one alone would wait in vain, and raise
    monkeypatch.setattr(demo_parts, "render", lambda *picture: both.wait() >= 0 and render(*picture))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_demo(tmp_path, "chip")
    image, _, mask = render("chip", "test", "scratch", 0)
    drawn = (
        tmp_path / "chip" / name for name in ("test/scratch/000.png", "ground_truth/scratch/000_mask.png")
    )
    assert np.array_equal(np.asarray(Image.open(next(drawn))), image)
    assert np.array_equal(np.asarray(Image.open(next(drawn))) > 0, mask)


@pytest.mark.usefixtures("few")
def test_a_killed_run_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo_parts, "mask_name", killed)
        with pytest.raises(KeyboardInterrupt):
            write_demo(tmp_path, "nut")
    assert not (tmp_path / "nut").exists()
    (tmp_path / ".nut.draft").mkdir(exist_ok=True)
    (tmp_path / ".nut.draft" / "half.png").write_bytes(b"")
    write_demo(tmp_path, "nut")
    assert not (tmp_path / ".nut.draft").exists()
    assert not list(tmp_path.rglob("half.png"))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("loss", ["mark", "image", "mask", "version"])
def test_an_incomplete_or_older_folder_is_drawn_anew(tmp_path: Path, loss: str) -> None:
    write_demo(tmp_path, "nut")
    whole = contents(tmp_path / "nut")
    if loss == "version":
        (tmp_path / "nut" / ".demo").write_text("0")
        (tmp_path / "nut" / "train" / "good" / "077.png").write_bytes(b"of an older version")
    else:
        name = {"mark": ".demo", "image": "test/rust/000.png", "mask": "ground_truth/rust/000_mask.png"}[loss]
        (tmp_path / "nut" / name).unlink()
    write_demo(tmp_path, "nut")
    assert contents(tmp_path / "nut") == whole


@pytest.mark.usefixtures("few")
def test_foreign_files_are_never_deleted(tmp_path: Path) -> None:
    photo = tmp_path / "nut" / "train" / "good" / "photo.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"photo\.png: not the demo's.*data\.root"):
        write_demo(tmp_path, "nut")
    assert photo.read_bytes() == b"mine"


def test_a_root_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the demo data.*data\.root"):
        write_demo(tmp_path / "file", "nut")


def test_the_drawing_shares_nothing_with_the_training_synthesis() -> None:
    sources = {path.stem: path.read_text() for path in Path(demo_parts.__file__).parent.glob("*.py")}
    assert sources.keys() >= {"canvas", "dataset", "defects", "parts", "scenes"}
    assert not any("anomaly_lab.synthesis" in source for source in sources.values())


@pytest.mark.long
@pytest.mark.parametrize("category", CATEGORIES)
def test_no_global_statistic_tells_defective_from_good(root: Path, category: str) -> None:
    """Two baselines (nearest training image, pixelwise variation), mean, spread; nor the reverse of any."""
    names = sorted((root / category / "test").glob("*/*.png"))
    label = [path.parent.name != "good" for path in names]
    train, test = pixels(list((root / category / "train" / "good").iterdir())), pixels(names)
    auroc = {}
    for step in (1, 2, 4):
        normal, x = (
            a.reshape(len(a), 256 // step, step, 256 // step, step, 3).mean(axis=(2, 4), dtype=np.float32)
            / 255
            for a in (train, test)
        )
        grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
        controls = {
            "nearest": euclidean_distances(x.reshape(len(x), -1), normal.reshape(len(normal), -1)).min(
                axis=1
            ),
            "variation": (((x - normal.mean(axis=0)) / np.maximum(normal.std(axis=0), 1e-2)) ** 2).sum(
                axis=(1, 2, 3)
            ),
            "mean": grey.mean(axis=(1, 2)),
            "deviation": grey.std(axis=(1, 2)),
        }
        auroc |= {(name, 256 // step): roc_auc_score(label, score) for name, score in controls.items()}
    assert all(0.25 <= value <= 0.75 for value in auroc.values()), auroc
