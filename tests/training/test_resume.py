"""A run that was killed goes on to the same bits; a seed gives the same bits for any number of workers."""

import csv
import json
import time
from pathlib import Path

import pytest
import torch

from tests.support.commands import begun, kill
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree

STEPS = 24  # eight epochs of three steps


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=5, size=(64, 64))


def training(tree: Path, workers: int) -> list[str]:
    length = [
        f"trainer.max_steps={STEPS}",
        "trainer.save_minutes=0",
        f"data.workers={workers}",
        "data.holdout=0",
    ]
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=2", "synthesis.probability=0.9"]
    return [*small, *on_tree(tree), *length, "evaluation.bootstrap=10"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "model.ckpt", weights_only=True)["state_dict"]


def last_step(path: Path) -> int:
    file = next(path.glob("runs/*/*/*/*/training.csv"), None)
    rows = file.read_text().splitlines() if file else []
    return int(rows[-1].split(",")[0]) if len(rows) > 1 and rows[-1][:1].isdigit() else 0


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory) -> tuple[dict[str, float], Path]:
    """The last batch of each epoch holds one image: 5 images, batches of 2."""
    return ran(tmp_path_factory.mktemp("whole"), *training(tree, 0))


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_in_mid_epoch_then_resume_gives_equal_bits(workers, tree, tmp_path, undisturbed):
    metrics, whole = undisturbed
    words = [*training(tree, workers), f"runs={tmp_path}/runs"]
    with begun("anomaly_lab", *words, said=tmp_path / "said.txt") as process:
        deadline = time.monotonic() + 100
        while (step := last_step(tmp_path)) < 7 or step % 3 == 0:
            assert process.is_alive(), (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        kill(process)
    manifest = next(tmp_path.glob("runs/*/*/*/*/manifest.json"))
    assert json.loads(manifest.read_text())["status"] == "running"
    saved = torch.load(manifest.parent / "resume.ckpt", weights_only=True)["global_step"]
    assert 0 < saved < STEPS

    resumed_metrics, resumed = ran(tmp_path, *training(tree, workers))
    assert resumed == manifest.parent
    ours, theirs = weights(whole), weights(resumed)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert resumed_metrics == metrics
    assert (whole / "metrics.json").read_bytes() == (resumed / "metrics.json").read_bytes()
    with (resumed / "training.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))


@pytest.mark.long
def test_the_number_of_workers_changes_no_bit(tree, tmp_path, undisturbed):
    metrics, whole = undisturbed
    same_metrics, path = ran(tmp_path, *training(tree, 1))
    ours, theirs = weights(whole), weights(path)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert same_metrics == metrics
    assert path.name == whole.name
