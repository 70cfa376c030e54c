"""What training.csv and the terminal show of a training: loss, rate, the wait for data."""

import csv
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.draem import Draem
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.synthesis.perlin_texture import PerlinTexture
from anomaly_lab.training.progress import Progress
from anomaly_lab.types import Training
from tests.runs.small_runs import manifest, tiny_draem
from tests.support.runs import composed, on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree: Path, model: str = "draem_small") -> list[str]:
    small = ["data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    return [f"model={model}", *on_tree(tree), *small]


def told(model: str, steps: int) -> AnomalyMethod:
    """Return a method that was told of a training of so many steps."""
    method = instantiate(composed(f"model={model}").model, _convert_="all")
    plan = {"each_once": True, "augmented": False, "pseudo": method.pseudo, "normals": []}
    method.tell(Training(steps=steps, epochs=1, precision="32-true", **plan))
    return method


def test_training_writes_one_row_a_step(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    rows = (path / "training.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss,learning_rate,images_per_second,loader_seconds"
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_training_csv_holds_the_rate_that_each_step_took(tree, tmp_path):
    schedule = ("model.warmup=0.4", "model.milestones=[0.8,0.9]", "model.gamma=0.2")
    _, path = ran(tmp_path, *tiny(tree, "draem_small"), "trainer.max_steps=10", *schedule)
    with (path / "training.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    full = 2e-3
    milestones = [full * 0.2, full * 0.04]  # at 8 and 9 of 10
    wanted = [full / 4, full / 2, full * 3 / 4, *[full] * 5, *milestones]
    assert rates == pytest.approx(wanted)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tree, tmp_path, monkeypatch):
    step = Draem.training_step

    def spoiled(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (float("nan") if self.global_step == 3 else 1.0)

    monkeypatch.setattr(Draem, "training_step", spoiled)
    with pytest.raises(RunError, match="the loss is nan at step 4"):
        ran(tmp_path, *tiny_draem(tree))
    path = next((tmp_path / "runs").glob("*/*/*/*"))
    assert manifest(path)["status"] == "failed"
    assert "the loss is nan" in manifest(path)["error"]
    saved = torch.load(path / "resume.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(v.isfinite().all() for v in saved["state_dict"].values())
    monkeypatch.undo()
    assert manifest(ran(tmp_path, *tiny_draem(tree))[1])["status"] == "done"


def test_the_wait_for_data_is_measured(tree, tmp_path, monkeypatch):
    genuine = PerlinTexture.__call__

    def slow(self, image, rng):
        time.sleep(0.04)
        return genuine(self, image, rng)

    monkeypatch.setattr(PerlinTexture, "__call__", slow)
    _, path = ran(tmp_path, *tiny(tree), "trainer.max_steps=6")
    with (path / "training.csv").open() as file:
        waits = [float(row["loader_seconds"]) for row in csv.DictReader(file)]
    assert sum(waits) > 0.04 * 2 * 4  # six steps of two images, of which the first may count as start
    assert all(wait >= 0 for wait in waits)


def test_saving_is_no_wait_for_data(tree, tmp_path, monkeypatch):
    genuine = RunDirectory.replacing

    def slow(self, name):
        time.sleep(0.3 if name == "resume.ckpt" else 0)
        return genuine(self, name)

    monkeypatch.setattr(RunDirectory, "replacing", slow)
    _, path = ran(tmp_path, *tiny(tree), "trainer.max_steps=6", "trainer.save_minutes=0")
    with (path / "training.csv").open() as file:
        assert max(float(row["loader_seconds"]) for row in csv.DictReader(file)) < 0.3


def test_losses_that_are_read_in_blocks_name_their_own_step(tmp_path):
    progress = Progress(tmp_path)
    progress.on_train_start(SimpleNamespace(global_step=0), told("variation", steps=40))
    losses = (1.0, float("nan"), 2.0)
    progress.unread = [(step, 3, torch.tensor(loss), 1e-4, 2, 0.0) for step, loss in enumerate(losses, 7)]
    with pytest.raises(RunError, match=r"the loss is nan at step 8, epoch 3; lower model\.learning_rate"):
        progress.on_train_epoch_end(None, None)
    progress.on_train_end(None, None)
    rows = (tmp_path / "training.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "7", "8"]


def test_on_an_accelerator_losses_are_read_in_blocks_and_before_a_save(tmp_path):
    """A stand-in for its batches: only the device of the images tells."""
    progress = Progress(tmp_path)
    method = told("draem_small", steps=40)
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    trainer = SimpleNamespace(global_step=0, current_epoch=0, optimizers=[optimizer])
    progress.on_train_start(trainer, method)
    images = type("Images", (), {"device": torch.device("cuda"), "__len__": lambda _: 2})()
    batch = SimpleNamespace(image=images)
    written = []
    for step in range(1, 41):
        trainer.global_step = step
        progress.on_train_batch_start(trainer, method, batch, step)
        progress.on_train_batch_end(trainer, method, {"loss": torch.tensor(float(step))}, batch, step)
        written.append(len((tmp_path / "training.csv").read_text().splitlines()) - 1)
    assert written == [0] * 31 + [32] * 9
    progress.on_train_epoch_end(trainer, method)
    progress.on_train_end(trainer, method)
    with (tmp_path / "training.csv").open() as file:
        assert [(row["step"], float(row["loss"])) for row in csv.DictReader(file)] == [
            (str(step), float(step)) for step in range(1, 41)
        ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\x00",
        b"\0\0\0\0\n",
        b'"open quote\n3,0,1,1,1,1\n',
        "\u00b2,0,1,1,1,1\n".encode(),
        b"1" * 5000 + b",0,1,1,1,1\n",
        b"2,0,=1+1,1,1,1\n",
        b"2,0",
        b"x" * 200_000,
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_a_row_that_no_training_wrote_is_dropped(garbage, tmp_path):
    header = "step,epoch,loss,learning_rate,images_per_second,loader_seconds"
    whole = ["1,0,0.5,0.1,2.0,0.0100", "2,0,1.5e-07,0.1,2.0,0.0100"]
    (tmp_path / "training.csv").write_bytes("\n".join([header, *whole, ""]).encode() + garbage)
    progress = Progress(tmp_path)
    progress.on_train_start(SimpleNamespace(global_step=2), told("variation", steps=4))
    progress.on_train_end(None, None)
    assert (tmp_path / "training.csv").read_text().splitlines() == [header, *whole]
