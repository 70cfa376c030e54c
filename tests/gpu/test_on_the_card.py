"""What a GPU computes is what a CPU computes: scores, fits, losses, compiled networks, resumed trainings.

Not part of the usual run: ``make gpu``, or ``pytest -m gpu``; ``--device cpu`` tries the tests themselves.
"""

import csv
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import anomaly_lab
from anomaly_lab.methods.draem import Draem
from tests.support.runs import on_tree, options, ran
from tests.support.stepping import drawn, step_of
from tests.support.supervision import defects
from tests.support.training import weights
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.gpu
RECIPES = options("model")
SMALL = [name for name in RECIPES if f"{name}_small" not in RECIPES]
TRAINED = ["draem_small", "prff_small", "mlff_small", "vt_adl_small", "vt_adl_released_small", "ae_l2_small"]
# A device draws its own noise: what is compared has none.
WITHOUT_NOISE = {name: ["model.latent_noise=0"] for name in ("vt_adl_small", "vt_adl_released_small")}
PRECISIONS = ["32-true", "bf16-mixed"]


@pytest.fixture(scope="module")
def device(request) -> str:
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("there is no CUDA device; --device cpu tries the tests themselves")
    return name


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=7, good=3, bad=3, size=(70, 80))


def asked(tree: Path, model: str, device: str, *further: str) -> list[str]:
    """Return a run of two steps; no feature that another device computed is taken from a cache."""
    small = [f"model={model}", *on_tree(tree), "data.image_size=64", "data.batch_size=3", "trainer=debug"]
    own = [
        f"trainer.device={device}",
        "cache.gigabytes=0",
        "evaluation.overlays=0",
        "evaluation.bootstrap=10",
    ]
    return [*small, *own, *WITHOUT_NOISE.get(model, []), *defects(model), *further]


@pytest.fixture(scope="module")
def on_cpu(tree, tmp_path_factory) -> Callable[[str], Path]:
    """Return the folder of a recipe's run on the CPU, done once."""
    return lru_cache(lambda model: ran(tmp_path_factory.mktemp(model), *asked(tree, model, "cpu"))[1])


def images_of(tree: Path) -> list[np.ndarray]:
    return [np.array(Image.open(file)) for file in sorted(tree.glob("part/test/*/*.png"))]


def first_loss(path: Path) -> float | None:
    with (path / "training.csv").open() as file:
        loss = next(csv.DictReader(file))["loss"]
    return float(loss) if loss else None


def scores(path: Path) -> Tensor:
    with (path / "predictions.csv").open() as file:
        return torch.tensor([float(row["score"]) for row in csv.DictReader(file)])


def assert_near(found: Tensor, wanted: Tensor, share: float) -> None:
    """Compare, with a tolerance that is a share of the largest value wanted."""
    torch.testing.assert_close(found, wanted, rtol=share, atol=share * wanted.abs().max().item())


# First, as it takes longest.
@pytest.mark.parametrize("model", ["draem_small", "prff_small", "mlff_small", "vt_adl_small"])
def test_compiled_networks_are_really_compiled_and_compute_the_same(model, tree, tmp_path, on_cpu, device):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _, path = ran(tmp_path, *asked(tree, model, device, "trainer.compile=true"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert first_loss(path) == pytest.approx(first_loss(on_cpu(model)), rel=1e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", SMALL)
def test_the_same_weights_give_the_same_maps_and_scores(model, precision, tree, on_cpu, device):
    loaded = anomaly_lab.load(on_cpu(model))
    wanted = loaded.predict(images_of(tree))
    loaded.method.to(device)
    loaded.bf16 = precision == "bf16-mixed"
    found = loaded.predict(images_of(tree))
    share = 1e-3 if precision == "32-true" else 0.1
    assert_near(found.score, wanted.score, share)
    assert_near(found.anomaly_map, wanted.anomaly_map, share)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", SMALL)
def test_a_whole_run_begins_and_fits_as_on_the_cpu(model, precision, tree, tmp_path, on_cpu, device):
    metrics, path = ran(tmp_path, *asked(tree, model, device, f"trainer.precision={precision}"))
    assert np.isfinite(list(metrics.values())).all()
    wanted = first_loss(on_cpu(model))
    if wanted is None:
        assert_near(scores(path), scores(on_cpu(model)), 5e-3 if precision == "32-true" else 0.2)
    else:
        assert first_loss(path) == pytest.approx(wanted, rel=1e-3 if precision == "32-true" else 0.05)


# Only strict chooses attention's deterministic kernel. VT-ADL's decoder resizes at another size than 128, and
# the kernel for that is not deterministic.
@pytest.mark.parametrize(
    ("model", "how"),
    [
        *[(model, "warn") for model in ("draem_small", "patchcore_small", "padim_small")],
        *[(model, "strict") for model in ("draem_small", "vt_adl_small", "patchcore_small", "padim_small")],
    ],
)
def test_two_deterministic_runs_have_the_same_bits(model, how, tree, tmp_path, device):
    size = 128 if model == "vt_adl_small" else 64
    wanted = asked(tree, model, device, f"trainer.deterministic={how}", f"data.image_size={size}")
    first, second = (weights(ran(tmp_path / name, *wanted)[1]) for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_that_was_broken_off_goes_on_to_the_same_bits(
    precision, tree, tmp_path, device, monkeypatch
):
    length = ["trainer=cpu", f"trainer.device={device}", "trainer.max_steps=12", "trainer.save_minutes=0"]
    wanted = [*asked(tree, "draem_small", device), *length, f"trainer.precision={precision}"]
    whole = weights(ran(tmp_path / "whole", *wanted)[1])
    begun = Draem.training_step

    def broken(self, batch, batch_idx):
        if self.global_step == 7:
            raise KeyboardInterrupt
        return begun(self, batch, batch_idx)

    monkeypatch.setattr(Draem, "training_step", broken)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        ran(tmp_path / "broken", *wanted)
    monkeypatch.undo()
    assert next(tmp_path.glob("broken/runs/*/*/*/*/resume.ckpt")).stat().st_size > 0
    resumed = weights(ran(tmp_path / "broken", *wanted)[1])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_exact_unless_tf32_is_asked_for(tf32, tree, tmp_path, device):
    if device == "cpu":
        pytest.skip("a CPU has no TF32")
    ran(tmp_path, *asked(tree, "nearest", device, f"trainer.tf32={str(tf32).lower()}"))
    a = torch.rand(512, 512, device=device) + 1
    error = ((a @ a).double() / (a.double() @ a.double()) - 1).abs().max().item()
    assert (error > 1e-5) is tf32


@pytest.mark.parametrize("model", ["draem_small", "prff_small", "mlff_small", "vt_adl_small"])
def test_a_training_step_waits_for_nothing(model, device):
    """A wait would be an error here: every value stays on the device until the loss is read."""
    if device == "cpu":
        pytest.skip("a CPU has no waits")
    batch = drawn(2, 128, torch.device(device))
    step = step_of([f"model={model}", "data=demo"], batch)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert step() is None
        with pytest.raises(RuntimeError, match="synchronizing"):  # so a wait would have been seen
            batch.image.mean().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
