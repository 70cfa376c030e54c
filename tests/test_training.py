"""What watches over training: the loss, the wait for data, a full disk, compilation, precision."""

import copy
import csv
import logging
import resource
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from sklearn.metrics import roc_auc_score
from torch import nn

import anomaly_lab
from anomaly_lab import compilation
from anomaly_lab.callbacks.training import Guard, Progress
from anomaly_lab.compilation import compile_networks
from anomaly_lab.errors import RunError
from anomaly_lab.results import RunDirectory
from anomaly_lab.synthesis.perlin_texture import PerlinTexture
from tests.runs import composed, on_tree, ran
from tests.trees import defective_image, mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree, model: str = "draem_small") -> list[str]:
    return [f"model={model}", *on_tree(tree), "data.image_size=64", "data.batch_size=2", "data.holdout=0"]


@pytest.fixture
def small_files():
    """Call it with a size in bytes: no file can then become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_the_last_good_file_is_kept(tmp_path, small_files):
    directory = RunDirectory(tmp_path)
    with directory.replacing("state.ckpt") as path, path.open("wb") as file:
        torch.save({"step": 1}, file)
    small_files(100_000)
    with (
        pytest.raises(RunError, match=r"state\.ckpt: cannot be written \(File too large\); the last good file is kept"),
        directory.replacing("state.ckpt") as path,
        path.open("wb") as file,
    ):
        torch.save({"step": 2, "weights": torch.rand(1_000_000)}, file)
    assert torch.load(tmp_path / "state.ckpt", weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.ckpt"]


def test_an_error_of_another_kind_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), RunDirectory(tmp_path).replacing("a"):
        raise RuntimeError("mine")


def test_training_goes_on_without_a_state_that_could_not_be_saved(tree, tmp_path, small_files, caplog):
    length = ("trainer.max_steps=6", "trainer.save_minutes=0")
    _, path = ran(tmp_path / "first", *tiny(tree), *length)
    small_files(int((path / "model.ckpt").stat().st_size * 1.5))  # Adam's state makes the other three times as large
    with caplog.at_level(logging.WARNING):
        _, path = ran(tmp_path / "second", *tiny(tree), *length)
    said = [record.getMessage() for record in caplog.records if "goes on without" in record.getMessage()]
    assert len(said) == 3
    assert "resume.ckpt: cannot be written (File too large)" in said[0]
    assert (path / "model.ckpt").exists()
    assert not list(path.rglob("*.part"))


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


def test_losses_that_are_read_in_blocks_name_their_own_step(tmp_path):
    progress = Progress(tmp_path)
    progress.on_train_start(SimpleNamespace(global_step=0), instantiate(composed("model=variation").model))
    losses = (1.0, float("nan"), 2.0)
    progress.unread = [(step, 3, torch.tensor(loss), 1e-4, 2, 0.0) for step, loss in enumerate(losses, 7)]
    with pytest.raises(RunError, match=r"the loss is nan at step 8, epoch 3; lower model\.learning_rate"):
        progress.on_train_epoch_end(None, None)
    progress.on_train_end(None, None)
    assert [row.split(",")[0] for row in (tmp_path / "training.csv").read_text().splitlines()] == ["step", "7", "8"]


def test_on_an_accelerator_losses_are_read_in_blocks_and_before_a_save(tmp_path):
    """A stand-in for its batches: only the device of the images tells."""
    progress = Progress(tmp_path)
    method = instantiate(composed("model=draem_small").model, _convert_="all")
    method.steps = 40
    trainer = SimpleNamespace(global_step=0, current_epoch=0, optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])
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


def test_saving_between_two_epochs_is_no_wait_for_data(tree, tmp_path, monkeypatch):
    genuine = RunDirectory.replacing

    def slow(self, name):
        time.sleep(0.3 if name == "resume.ckpt" else 0)
        return genuine(self, name)

    monkeypatch.setattr(RunDirectory, "replacing", slow)
    _, path = ran(tmp_path, *tiny(tree), "trainer.max_steps=6", "trainer.save_minutes=0")
    with (path / "training.csv").open() as file:
        assert max(float(row["loader_seconds"]) for row in csv.DictReader(file)) < 0.3


@pytest.mark.parametrize("saved", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("resumed", [torch.channels_last, torch.contiguous_format])
def test_a_state_saved_under_another_layout_goes_on_alike(saved, resumed):
    def made(layout):
        torch.manual_seed(0)
        network = nn.Conv2d(4, 6, 3).to(memory_format=layout)
        return network, torch.optim.AdamW(network.parameters(), 0.01, fused=True)

    def step(network, optimizer):
        optimizer.zero_grad()
        (network(torch.linspace(-1, 1, 4 * 64).reshape(1, 4, 8, 8)) ** 2).sum().backward()
        optimizer.step()

    network, optimizer = made(saved)
    for _ in range(3):
        step(network, optimizer)
    again, its_optimizer = made(resumed)
    again.load_state_dict(network.state_dict())
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    Guard(0).on_train_start(SimpleNamespace(optimizers=[its_optimizer], global_step=3), None)
    step(network, optimizer)
    step(again, its_optimizer)
    torch.testing.assert_close(again.weight, network.weight)


@pytest.mark.parametrize(("works", "count"), [(True, 2), (False, 0)])
def test_networks_are_compiled_where_that_works(works, count, monkeypatch, caplog):
    compiled: list[nn.Module] = []

    def broken(function):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", (lambda function: function) if works else broken)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))  # noqa: PLW0108 - binds
    with caplog.at_level(logging.WARNING), torch._dynamo.config.patch(suppress_errors=False):
        compile_networks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "cpu")
    assert len(compiled) == count
    assert ("runs uncompiled" in caplog.text) is not works


def test_a_run_is_compiled_only_when_it_is_asked_for(tree, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(compilation, "compile_networks", lambda method, device: asked.append(device))
    ran(tmp_path, *tiny(tree), "trainer=debug")
    assert asked == []
    ran(tmp_path, *tiny(tree), "trainer=debug", "trainer.compile=true")
    assert asked == ["cpu"]


@pytest.mark.parametrize(
    ("model", "pseudo"),
    [(model, "synthesis.probability=0.8") for model in ("draem_small", "prff_small")]
    + [("mlff_small", "synthesis.ratio=0.8")],
)
def test_bf16_scores_rank_as_float32_does(model, pseudo, tree, tmp_path):
    """The same weights under both precisions; SSIM, losses and the last layer stay in float32."""
    _, path = ran(tmp_path, *tiny(tree, model), "trainer.max_steps=40", pseudo)
    run = anomaly_lab.load(path)
    images, masks = zip(*(defective_image((64, 64), 7, number) for number in range(12)), strict=True)
    found = []
    for run.bf16 in (False, True):
        prediction = run.predict(images)
        assert prediction.anomaly_map.dtype == torch.float32
        found.append(roc_auc_score(np.stack(masks).ravel(), prediction.anomaly_map.numpy().ravel()))
    assert found[0] > 0.6  # else both could be chance
    assert found[1] == pytest.approx(found[0], abs=0.005)
    assert found[1] != found[0]
