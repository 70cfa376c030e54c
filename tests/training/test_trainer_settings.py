"""What a training runs on and how long: device, length, compilation, bf16 that ranks as float32 does."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import anomaly_lab
from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.training.settings import TrainerSettings
from tests.support.runs import composed, on_tree, ran
from tests.support.trees import defective_image, mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree: Path, model: str = "draem_small") -> list[str]:
    small = ["data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    return [f"model={model}", *on_tree(tree), *small]


def settings(option: str = "default", **changes: Any) -> TrainerSettings:
    """Return an option of conf/trainer, of which a recipe would set the length."""
    return instantiate(composed(f"trainer={option}").trainer, **changes)


# Device and precision


@pytest.mark.parametrize(
    ("option", "device", "precision"),
    [
        *[("default", "cpu", "32-true"), ("debug", "cpu", "32-true"), ("cpu", "cpu", "32-true")],
        *[("gpu", "cuda", "32-true"), ("gpu_bf16", "cuda", "bf16-mixed"), ("mps", "mps", "32-true")],
    ],
)
def test_an_option_names_its_device_and_says_if_it_is_not_there(option, device, precision, monkeypatch):
    found = settings(option)
    assert found.precision == precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if device == "cpu":
        assert found.accelerator() == "cpu"
    else:
        with pytest.raises(ConfigError) as caught:
            found.accelerator()
        said = f"trainer.device: {device} is not available here; give trainer.device=cpu"
        assert str(caught.value) == said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    wanted = "cuda" if found.device == "auto" else device
    assert found.accelerator() == wanted


def test_mps_is_taken_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert settings().accelerator() == "cpu"


def test_half_precision_without_a_gpu_is_one_line():
    with pytest.raises(ConfigError, match=r"^trainer\.precision: 16-mixed needs a GPU; give bf16-mixed or"):
        settings("cpu", precision="16-mixed").accelerator()


# Length


@pytest.mark.parametrize(
    ("lengths", "steps"),
    [
        *[
            ((3, -1, None), 15),
            ((3, 7, None), 7),
            ((-1, 7, None), 7),
            ((3, 70, None), 15),
            ((1, -1, None), 5),
        ],
        *[((3, -1, 2), 2), ((-1, 1, 2), 1), ((3, -1, 0), 0)],
    ],
)
def test_training_ends_at_the_first_of_its_limits(lengths, steps):
    names = ("max_epochs", "max_steps", "step_limit")
    assert settings(**dict(zip(names, lengths, strict=True))).steps(5) == steps


@pytest.mark.parametrize(("epochs", "steps"), [(-1, -1), (0, -1), (3, 0), (0, 5)])
def test_a_training_without_an_end_or_a_step_is_one_line(epochs, steps):
    with pytest.raises(ConfigError) as caught:
        settings(max_epochs=epochs, max_steps=steps).steps(5)
    given = f"trainer.max_epochs={epochs}, trainer.max_steps={steps}"
    assert str(caught.value) == f"{given}: give one of them, at least 1; -1 means no limit"


# Compilation


@pytest.mark.parametrize(("works", "count"), [(True, 2), (False, 0)])
def test_networks_are_compiled_where_that_works(works, count, monkeypatch, caplog):
    compiled: list[nn.Module] = []

    def broken(function):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", (lambda function: function) if works else broken)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))  # noqa: PLW0108 - binds
    how = settings("cpu", compile=True)
    with caplog.at_level(logging.WARNING), torch._dynamo.config.patch(suppress_errors=False):
        how.compile_networks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert len(compiled) == count
    assert ("runs uncompiled" in caplog.text) is not works


def test_a_run_is_compiled_only_when_it_is_asked_for(tree, tmp_path, monkeypatch):
    tried: list[str] = []
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda function: lambda x: tried.append(x.device.type))
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))  # noqa: PLW0108 - binds
    with torch._dynamo.config.patch(suppress_errors=False):
        ran(tmp_path, *tiny(tree), "trainer=debug")
        assert (tried, compiled) == ([], [])
        ran(tmp_path, *tiny(tree), "trainer=debug", "trainer.compile=true")
    assert tried == ["cpu"]
    assert len(compiled) == 2  # of DRAEM


# Precision


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "pseudo"),
    [(model, "synthesis.probability=0.8") for model in ("draem_small", "prff_small")]
    + [("mlff_small", "synthesis.ratio=0.8")],
)
def test_bf16_scores_rank_as_float32_does(model, pseudo, tree, tmp_path):
    """The same weights under both precisions; SSIM, losses and the last layer stay in float32."""
    full_rate = ["model.milestones=[0.8,0.9]", "model.gamma=0.2"] if model == "draem_small" else []
    _, path = ran(tmp_path, *tiny(tree, model), "trainer.max_steps=40", pseudo, *full_rate)
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
