"""Runs that two processes share: the same run, the same numbers, one folder, one voice; whatever ends it."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.draem import Draem
from tests.runs.small_runs import manifest
from tests.support.commands import begun, ended
from tests.support.runs import on_tree, ran
from tests.support.training import weights
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.long
TWO = "trainer.devices=2"
STEPS = 5


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Seven images to train on, nine to test on: no batch of four is halved throughout."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=9, good=4, bad=5, size=(64, 64))


def small(tree: Path, model: str, *more: str) -> list[str]:
    of_all = ["data.image_size=64", "data.batch_size=4", "data.holdout=0.2", "evaluation.bootstrap=10"]
    of_all += ["cache.gigabytes=0", "evaluation.save_maps=true", "evaluation.overlays=2"]
    return [f"model={model}", *on_tree(tree), *of_all, *more]


def trained(tree: Path, *more: str) -> list[str]:
    return small(tree, "draem_small", f"trainer.max_steps={STEPS}", *more)


def scores(path: Path) -> np.ndarray:
    with (path / "predictions.csv").open() as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


def losses(path: Path) -> list[float]:
    with (path / "training.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def files(path: Path) -> list[str]:
    """Return what is in the folder, but for the names of overlays, which tell whose they are."""
    names = [file.relative_to(path).as_posix() for file in path.rglob("*")]
    return sorted("maps/x.png" if name.endswith(".png") and "-" in name else name for name in names)


def both(tmp_path: Path, *words: str, of_two: str = TWO) -> list[tuple[dict[str, float], Path]]:
    return [ran(tmp_path / folder, *words, *more) for folder, more in (("one", []), ("two", [TWO, of_two]))]


@pytest.mark.parametrize(
    ("model", "more", "bound"),
    [
        # The others stand in experiments/ddp.md, by tests/side_by_side.py
        ("deep_knn_small", [], 1e-6),
        ("padim_small", ["evaluation.poison=true"], 1e-4),
        ("patchcore_small", [], 1e-6),
    ],
)
def test_what_is_fitted_has_the_numbers_of_one_process(model, more, bound, tree, tmp_path):
    (alone, one), (shared, two) = both(tmp_path, *small(tree, model, *more))
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        assert shared[name] == pytest.approx(value, rel=bound, abs=bound), name
    np.testing.assert_allclose(scores(two), scores(one), rtol=bound)
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name  # no image twice, none left out
        torch.testing.assert_close(ours[name], value, rtol=10 * bound, atol=10 * bound, msg=name)
    with np.load(one / "maps/maps.npz") as their_maps, np.load(two / "maps/maps.npz") as our_maps:
        assert len(our_maps) == len(their_maps) == 9
        for row in their_maps:
            np.testing.assert_allclose(our_maps[row], their_maps[row], rtol=10 * bound, atol=10 * bound)
    assert files(one) == files(two)
    assert two.name == one.name
    assert (manifest(one)["ranks"], manifest(two)["ranks"]) == (1, 2)


def test_a_training_is_the_same_run_and_its_first_loss_that_of_the_whole_batch(tree, tmp_path):
    (alone, one), (shared, two) = both(tmp_path, *trained(tree), of_two="data.workers=1")
    assert alone.keys() == shared.keys()
    assert len(losses(two)) == len(losses(one)) == STEPS
    assert losses(two)[0] == pytest.approx(losses(one)[0], rel=1e-5)
    assert losses(two)[1] == pytest.approx(losses(one)[1], rel=1e-2)
    assert files(one) == files(two)
    assert two.name == one.name
    assert manifest(two)["training_hash"] == manifest(one)["training_hash"]


def test_an_epoch_of_the_mean_of_features_is_that_of_all_images(tree, tmp_path):
    """MLFF makes its center of the first epoch's features, before the weights have moved by much."""
    words = small(tree, "mlff_small", "trainer.max_epochs=1", "trainer.max_steps=-1")
    words += ["model.learning_rate=1e-9", "model.losses.feature=1"]
    (_, one), (_, two) = both(tmp_path, *words)
    torch.testing.assert_close(weights(two)["center_"], weights(one)["center_"], rtol=1e-4, atol=1e-5)
    assert weights(two)["center_"].abs().max() > 0.01


# What ends it


def wait_for_steps(process, tmp_path: Path, steps: int) -> Path:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        assert process.is_alive(), (tmp_path / "said.txt").read_text()
        for file in tmp_path.glob("runs/*/*/*/*/training.csv"):
            if len(file.read_text().splitlines()) > steps:
                return file.parent
        time.sleep(0.05)
    raise AssertionError("it does not begin")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def test_a_rank_that_is_killed_ends_the_run_in_a_line_and_the_same_command_goes_on(tree, tmp_path):
    words = trained(tree, TWO, "trainer.max_steps=40", "trainer.save_minutes=0")
    with begun("anomaly_lab", *words, f"runs={tmp_path}/runs", said=tmp_path / "said.txt") as process:
        path = wait_for_steps(process, tmp_path, 3)
        (rank,) = children(process.pid)
        os.kill(rank, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == 1
    said = (tmp_path / "said.txt").read_text()
    assert "anomaly_lab: error: rank 1 of 2 was killed by signal 9; the same command goes on" in said
    assert "Traceback" not in said
    assert manifest(path)["status"] == "failed"
    assert 3 <= torch.load(path / "resume.ckpt", weights_only=True)["global_step"] < 40
    _, resumed = ran(tmp_path, *words)
    assert resumed == path
    assert "goes on from" in (path / "run.log").read_text()
    assert len(losses(path)) == 40


def test_sigterm_saves_a_state_of_both_from_which_one_or_two_go_on(tree, tmp_path):
    words = trained(tree, "trainer.max_steps=40", "trainer.save_minutes=60")
    with begun("anomaly_lab", *words, TWO, f"runs={tmp_path}/runs", said=tmp_path / "said.txt") as process:
        path = wait_for_steps(process, tmp_path, 3)
        (rank,) = children(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        assert process.exitcode == 143, (tmp_path / "said.txt").read_text()
    assert not Path(f"/proc/{rank}").exists()
    assert manifest(path)["status"] == "interrupted"
    saved = torch.load(path / "resume.ckpt", weights_only=True)["global_step"]
    assert 3 <= saved < 40
    _, resumed = ran(tmp_path, *words)  # one process goes on
    assert resumed == path
    with (path / "training.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 41))


def test_two_go_on_with_what_one_began(tree, tmp_path):
    words = trained(tree, "trainer.max_steps=6", "trainer.save_minutes=0")
    _, whole = ran(tmp_path / "whole", *words, TWO)
    with pytest.MonkeyPatch.context() as patched:
        genuine = Draem.training_step

        def stopping(self, batch, batch_idx):
            if self.global_step == 3:
                raise KeyboardInterrupt
            return genuine(self, batch, batch_idx)

        patched.setattr(Draem, "training_step", stopping)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            ran(tmp_path, *words)
    (path,) = (tmp_path / "runs").glob("*/*/*/*")
    assert torch.load(path / "resume.ckpt", weights_only=True)["global_step"] == 3
    _, resumed = ran(tmp_path, *words, TWO)
    assert resumed == path
    assert len(losses(path)) == 6
    assert losses(path)[3] == pytest.approx(losses(whole)[3], rel=0.2)


def test_a_loss_that_is_not_finite_is_told_once(tree, tmp_path):
    words = trained(tree, TWO, "model.learning_rate=1e30")
    with begun("anomaly_lab", *words, f"runs={tmp_path}/runs", said=tmp_path / "said.txt") as process:
        process.join(120)
        assert process.exitcode == 1
    said = (tmp_path / "said.txt").read_text()
    assert said.count("anomaly_lab: error: ") == 1
    assert "the loss is" in said
    assert "Traceback" not in said


def test_a_sweep_gives_each_job_its_two_ranks_and_skips_what_is_done(tree, tmp_path):
    words = small(tree, "nearest", TWO, "seed=0,1", f"runs={tmp_path}/runs")
    assert ended("anomaly_lab", "-m", *words, said=tmp_path / "said.txt") == 0
    said = (tmp_path / "said.txt").read_text()
    paths = sorted((tmp_path / "runs").glob("nearest/*/*/*"))
    assert [manifest(path)["status"] for path in paths] == ["done", "done"]
    assert [manifest(path)["seed"] for path in paths] == [0, 1]
    assert said.count("nearest/mvtec/part/") >= 2
    assert len(list((tmp_path / "runs").glob(".sweeps/*"))) <= 1
    began = time.monotonic()
    assert ended("anomaly_lab", "-m", *words, said=tmp_path / "said.txt") == 0
    assert time.monotonic() - began < 60
    assert all("seconds" in json.loads((path / "manifest.json").read_text()) for path in paths)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([TWO, "data.batch_size=1"], "2 processes would share the 1 images of a batch"),
        (["trainer.devices=8", "data.batch_size=16"], "8 processes would share the 7 images of training"),
        (["trainer.nodes=2"], "several machines want a process for each device; start them by srun or"),
        (["trainer.devices=0"], "trainer.devices=0, trainer.nodes=1: give at least 1"),
        ([TWO, "trainer.compile=true"], "trainer.compile: kernels are made on one device"),
    ],
)
def test_what_cannot_be_shared_is_one_line(words, line, tree, tmp_path):
    with pytest.raises(ConfigError, match=line) as caught:
        ran(tmp_path, *small(tree, "nearest", *words))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
