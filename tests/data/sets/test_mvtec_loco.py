"""MVTec LOCO: the folder of an image's masks is its mask."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomaly_lab.data.content import content_hash
from anomaly_lab.data.images import read_mask
from anomaly_lab.data.listing import ListingError
from anomaly_lab.data.sets.mvtec_loco import MVTecLOCO
from anomaly_lab.errors import DataError
from anomaly_lab.verbs.check import examine
from tests.support.data_modules import COMMON, SIZE, listed, read, ready
from tests.support.runs import ran
from tests.support.trees import loco_tree, write_png


def loco(root: Path, **changes: Any) -> MVTecLOCO:
    return MVTecLOCO(**{**COMMON, "root": str(root), "category": "pushpins", **changes})


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


def test_what_is_no_mask_among_them_is_passed_over(tmp_path):
    data = ready(loco(loco_tree(tmp_path)))
    record = data.test.records[3]
    wanted, known = read_mask(record.mask, SIZE), content_hash(record.mask)
    (record.mask / "Thumbs.db").write_bytes(b"no image")
    os.mkfifo(record.mask / "pipe.png")  # to open it would be to wait for ever
    assert np.array_equal(read_mask(record.mask, SIZE), wanted)
    assert content_hash(record.mask) == known


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
    how = [
        "model=variation",
        "data.image_size=[32,40]",
        "trainer=debug",
        f"evaluation.resolution={resolution}",
    ]
    how += ["evaluation.overlays=2", "evaluation.save_maps=true"]
    metrics, run = ran(tmp_path, *how, "data=mvtec_loco", f"data.root='{root}'", "data.category=pushpins")
    same, _ = ran(tmp_path, *how, "data=mvtec", f"data.root='{tmp_path}/mvtec'", "data.category=part")
    less, _ = ran(
        tmp_path, *how, "data=mvtec_loco", f"data.root='{first}'", "data.category=pushpins", "tag=less"
    )
    assert (run / "metrics.json").is_file()
    assert {"threshold", "image_auroc", "pixel_auroc", "pixel_aupro"} <= metrics.keys()
    assert metrics == same
    assert abs(metrics["pixel_aupro"] - less["pixel_aupro"]) > 1e-3
    if resolution == "network":
        maps = np.load(run / "maps/maps.npz")
        data = ready(loco(root, image_size=(32, 40)))
        scores = np.stack([maps[name] for name in sorted(maps.files)])  # by row: 00000, 00001, ...
        assert metrics["pixel_auroc"] == pytest.approx(
            roc_auc_score(data.test.masks.ravel(), scores.ravel()), abs=1e-5
        )


def test_the_fingerprint_covers_every_mask(tmp_path):
    root = loco_tree(tmp_path)
    folder = root / "pushpins/ground_truth/logical_anomalies/001"
    before, digest = loco(root).fingerprint, content_hash(folder)
    (folder / ".DS_Store").write_bytes(b"a finder's")
    assert loco(root).fingerprint == before
    assert np.array_equal(read_mask(folder, SIZE), union_of_png(folder))
    changed = read(folder / "001.png")
    changed[0, 0] = 236 - changed[0, 0]
    write_png(folder / "001.png", changed)
    assert loco(root).fingerprint != before
    assert content_hash(folder) != digest


def test_a_folder_of_masks_is_hashed_by_file(tmp_path):
    digests, two = {}, [b"x", b"y"]
    for name, parts in {
        "one": two,
        "same": two,
        "joined": [b"xy"],
        "split": [b"xy", b""],
        "turned": two[::-1],
    }.items():
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
        listed(loco(tmp_path))
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
