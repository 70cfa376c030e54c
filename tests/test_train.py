"""A run as a whole: what bad input ends in, and what its numbers are by resolution and precision."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.evaluation import collect
from tests.runs.small_runs import control
from tests.support.runs import ran
from tests.support.trees import mvtec_tree, write_png


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


def spoil(file: str, content: bytes | np.ndarray | None):
    """Return what replaces, adds or (None) removes a file of the category."""

    def change(root: Path) -> None:
        path = root / "part" / file
        if content is None:
            path.unlink() if path.is_file() else shutil.rmtree(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_png(path, content)

    return change


def empty_training(root: Path) -> None:
    for file in (root / "part" / "train" / "good").iterdir():
        file.unlink()


BLANK = np.zeros((64, 64), np.uint8)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (spoil("", None), "no such folder"),
        (empty_training, "no training images"),
        (spoil("train/good/000.png", b"junk"), r"train/good/000\.png"),
        (spoil("test/good/000.png", b"\x89PNG\r\n\x1a\n"), r"test/good/000\.png"),
        (spoil("ground_truth/scratch/000_mask.png", BLANK[:3, :3]), r"000_mask\.png.*its image"),
        (spoil("ground_truth/scratch/zz_mask.png", BLANK), r"zz_mask\.png: is a mask of 0 images"),
    ],
)
def test_bad_data_end_in_one_line_and_nothing_written(spoil, line, tree, tmp_path):
    spoil(tree)
    with pytest.raises(DataError, match=line) as caught:
        ran(tmp_path, *control(tree))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_missing_mask_drops_the_pixel_metrics_or_is_an_error(tree, tmp_path, caplog):
    (tree / "part" / "ground_truth" / "scratch" / "001_mask.png").unlink()
    metrics, _ = ran(tmp_path, *control(tree))
    assert not [name for name in metrics if name.startswith("pixel")]
    assert "1 anomalous test images have no mask" in caplog.text
    with pytest.raises(DataError, match=r"001\.png: has no mask \(1 such"):
        ran(tmp_path, *control(tree), "data.masks=required")


def test_what_the_files_hold_is_in_the_log_and_another_white_is_another_run(tree, tmp_path):
    for file in tree.glob("part/t*/*/*.png"):
        Image.fromarray(np.asarray(Image.open(file))[..., 0].astype(np.uint16) * 16).save(file)
    write_png(tree / "part/ground_truth/scratch/000_mask.png", BLANK)
    _, found = ran(tmp_path, *control(tree))
    assert json.loads((found / "manifest.json").read_text())["white"] == 4095
    said = (found / "run.log").read_text()
    assert "data.white: 4095 is white in files of more than 8 bits, found on the training images" in said
    assert "1 of 3 masks of defective images mark nothing" in said
    _, other = ran(tmp_path, *control(tree), "data.white=65535")
    assert other != found
    assert json.loads((other / "manifest.json").read_text())["white"] == 65535
    assert "data.white" not in (other / "run.log").read_text()


def test_a_gpu_that_is_not_there_is_one_line(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.device: cuda is not available"):
        ran(tmp_path, *control(tree), "trainer=gpu_bf16")
    assert not (tmp_path / "runs").exists()


def test_the_original_resolution_is_a_switch(tree, tmp_path):
    network, _ = ran(tmp_path, *control(tree))
    original, _ = ran(tmp_path, *control(tree), "evaluation.resolution=original")
    assert original["image_auroc"] == network["image_auroc"]
    assert original["pixel_auroc"] != network["pixel_auroc"]
    assert original["pixel_aupro"] > 0.5


def test_pixel_metrics_are_sorted_exactly_where_the_histogram_is_too_coarse(
    tree, tmp_path, monkeypatch, caplog
):
    small, _ = ran(tmp_path, *control(tree))
    assert "scored again" not in caplog.text
    monkeypatch.setattr(collect, "FEW_PIXELS", 0)
    monkeypatch.setattr(collect, "TOLERANCE", 1.0)
    streamed, _ = ran(tmp_path / "streamed", *control(tree))
    assert "scored again" not in caplog.text
    monkeypatch.setattr(collect, "TOLERANCE", -1.0)
    exact, _ = ran(tmp_path / "exact", *control(tree))
    assert "scored again and sorted exactly" in caplog.text
    assert exact == small
    assert streamed.keys() == small.keys()
    for name, value in small.items():
        assert streamed[name] == pytest.approx(value, abs=1e-4), name
