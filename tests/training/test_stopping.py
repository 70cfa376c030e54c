"""Ctrl-C and SIGTERM end a training after its step, and nothing is lost; a second one ends it at once."""

import csv
import signal
from pathlib import Path

import pytest
import torch

from anomaly_lab.__main__ import terminable
from anomaly_lab.errors import Terminated
from anomaly_lab.methods.draem import Draem
from anomaly_lab.methods.padim import Padim
from tests.runs.small_runs import manifest
from tests.support.runs import on_tree, ran
from tests.support.training import weights
from tests.support.trees import mvtec_tree

STEPS = 8  # of epochs of three steps
SIGNALS = {signal.SIGINT: (KeyboardInterrupt, SystemExit), signal.SIGTERM: (Terminated,)}


@pytest.fixture(autouse=True)
def _listening():
    """Hear Ctrl-C, also where a shell started the tests in the background, which lets them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=5, size=(64, 64))


def training(tree: Path, *more: str) -> list[str]:
    """The state is saved for a signal alone, as it is long before `save_minutes`."""
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    short = [f"trainer.max_steps={STEPS}", "evaluation.bootstrap=10", "evaluation.overlays=0"]
    return [*small, *short, *on_tree(tree), "trainer.save_minutes=60", *more]


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory) -> tuple[dict[str, float], Path]:
    return ran(tmp_path_factory.mktemp("whole"), *training(tree))


def signalled(monkeypatch: pytest.MonkeyPatch, number: int, step: int, times: int = 1) -> None:
    """Have the signal come while a step is computed."""
    genuine = Draem.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == step - 1:
            for _ in range(times):
                signal.raise_signal(number)
        torch.rand(())  # a random number a step, as a network with dropout draws them
        return genuine(self, batch, batch_idx)

    monkeypatch.setattr(Draem, "training_step", interrupted)


def stopped(tmp_path: Path, number: int, *overrides: str) -> Path:
    before = signal.getsignal(signal.SIGINT)
    with terminable(), pytest.raises(SIGNALS[number]):
        ran(tmp_path, *overrides)
    assert signal.getsignal(signal.SIGINT) == before
    (path,) = (tmp_path / "runs").glob("*/*/*/*")
    assert manifest(path)["status"] == "interrupted"
    return path


@pytest.mark.parametrize(("number", "step", "workers"), [(signal.SIGINT, 4, 2), (signal.SIGTERM, 6, 0)])
def test_after_a_signal_the_same_command_goes_on_to_the_same_bits(
    number, step, workers, tree, tmp_path, monkeypatch, undisturbed
):
    signalled(monkeypatch, number, step)
    path = stopped(tmp_path, number, *training(tree, f"data.workers={workers}"))
    assert torch.load(path / "resume.ckpt", weights_only=True)["global_step"] == step
    monkeypatch.undo()
    metrics, resumed = ran(tmp_path, *training(tree, f"data.workers={workers}"))
    assert resumed == path
    ours, theirs = weights(undisturbed[1]), weights(path)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert metrics == undisturbed[0]
    losses = []
    for folder in (path, undisturbed[1]):
        with (folder / "training.csv").open() as file:
            losses.append([(row["step"], row["epoch"], row["loss"]) for row in csv.DictReader(file)])
    assert losses[0] == losses[1]
    assert not (path / "resume.ckpt").exists()


def test_a_second_signal_ends_it_at_once(tree, tmp_path, monkeypatch):
    signalled(monkeypatch, signal.SIGINT, 4, times=2)
    path = stopped(tmp_path, signal.SIGINT, *training(tree))
    assert not (path / "resume.ckpt").exists()
    assert "the same command starts it anew" in (path / "run.log").read_text()


def test_what_an_epoch_gathers_outside_of_the_weights_is_not_cut(tree, tmp_path, monkeypatch):
    signalled(monkeypatch, signal.SIGINT, 4)
    genuine = Draem.training_step

    def gathering(self, batch, batch_idx):
        self.seen = [batch.image]
        return genuine(self, batch, batch_idx)

    monkeypatch.setattr(Draem, "training_step", gathering)
    path = stopped(tmp_path, signal.SIGINT, *training(tree))
    assert torch.load(path / "resume.ckpt", weights_only=True)["global_step"] == 6  # an epoch's end


def test_a_fit_in_one_pass_ends_at_once(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(Padim, "update", lambda self, image: signal.raise_signal(signal.SIGINT))
    small = ["model=padim_small", "data.image_size=64", "model.backbone.weights=random"]
    path = stopped(tmp_path, signal.SIGINT, *small, *on_tree(tree))
    assert not (path / "resume.ckpt").exists()
