"""Every method on a CUDA device that only shapes know: no tensor stays on the CPU, no batch waits unasked.

PyTorch's FakeTensorMode computes shapes, types and devices, not values. A value that Python asks for is an
error there, and on a real device a wait; the known ones are replaced, each for a reason.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import anomaly_lab
from anomaly_lab.estimators import knn
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.prff.method import Prff
from anomaly_lab.types import TrainBatch
from tests.support.runs import on_tree, options, ran
from tests.support.training import told
from tests.support.trees import mvtec_tree

RECIPES = options("model")
SMALL = [name for name in RECIPES if f"{name}_small" not in RECIPES]
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 64
WAITED = (DataDependentOutputException, DynamicOutputShapeException)


def searched_once(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return knn._search(queries.float(), bank.float(), count, torch.float32)[:2]


# What waits for the device, why, and what stands for it here.
WAITS = {
    "anomaly_lab.backbones.cached._same": (
        "whether the batch is the last one, whose features are drawn; one comparison a batch",
        lambda one, other: False,
    ),
    "anomaly_lab.estimators.knn.nearest": (
        "which queries rounding left unsure: they are searched again in float64",
        searched_once,
    ),
    "anomaly_lab.methods.cpcae_knn.CpcaeKnn._folds": (
        "whose fold an image is in, by its content; only with model.residual_folds above 1",
        lambda self, image: torch.zeros(len(image), dtype=torch.int64, device=image.device),
    ),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Return a recipe's method, learned on a few images; done once."""
    tree = mvtec_tree(tmp_path_factory.mktemp("tree"), train=7, good=2, bad=2, size=(70, 80))
    short = [f"data.image_size={SIDE}", "trainer=debug", "data.batch_size=3", "cache.gigabytes=0"]
    drawn = ["evaluation.overlays=0", "evaluation.bootstrap=10"]

    def learned(model: str, *further: str) -> AnomalyMethod:
        folder: Path = tmp_path_factory.mktemp(model)
        asked = [f"model={model}", *on_tree(tree), *short, *drawn, *further]
        return anomaly_lab.load(ran(folder, *asked)[1]).method

    return lru_cache(learned)


def faked(method: AnomalyMethod, mode: FakeTensorMode) -> AnomalyMethod:
    """Return a copy whose parameters and buffers are on the fake device."""
    method = copy.deepcopy(method)
    parts = list(method.modules())
    with mode:
        for kind in ("_parameters", "_buffers"):
            for part in parts:
                for name, value in getattr(part, kind).items():
                    if value is not None:
                        getattr(part, kind)[name] = moved(value, mode)
    method.log_dict = lambda *_, **__: None
    return told(method)


def moved(value: Tensor, mode: FakeTensorMode) -> Tensor:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.utils._python_dispatch._disable_current_modes())
        there = mode.from_tensor(value.detach())
    there = there.to("cuda")
    return nn.Parameter(there, value.requires_grad) if isinstance(value, nn.Parameter) else there


@contextlib.contextmanager
def without_waits(*names: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(name, WAITS[name][1])
            if name.endswith("knn.nearest"):
                patch.setattr("anomaly_lab.methods.patchcore.nearest", WAITS[name][1])
        yield


def used(method: AnomalyMethod, image: Tensor, precision: str) -> tuple[list[Tensor], list[Tensor]]:
    """Do with a batch all that a run does; return what has to be float32, and the panels."""
    mask = torch.zeros(len(image), SIDE, SIDE, dtype=torch.bool, device="cuda")
    dtype = PRECISIONS[precision]
    with torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None):
        loss = method.train().training_step(TrainBatch(image, image, mask), 0)
        method.eval()
        with torch.no_grad():
            prediction = method(image)
            panels, embedding = method.panels(image), method.embed(image)
    return [value for value in (loss, *prediction, embedding) if value is not None], list(panels.values())


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("model", SMALL)
def test_a_batch_stays_on_the_device_and_waits_for_nothing_unknown(model, fitted):
    mode = FakeTensorMode()
    there = faked(fitted(model), mode)
    if isinstance(there, Prff):  # which images get a further pass is a wait, below
        there.progressive = dataclasses.replace(there.progressive, iterations=1)
    with mode, without_waits(*WAITS):
        for precision in PRECISIONS:
            exact, panels = used(there, torch.rand(2, 3, SIDE, SIDE, device="cuda"), precision)
            assert {value.device.type for value in (*exact, *panels)} == {"cuda"}
            assert {value.dtype for value in exact} == {torch.float32}


FIRST, SECOND, THIRD = WAITS


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    ("wait", "recipe", "line"),
    [
        (FIRST, ["padim_small"], "torch.equal(one[:1], other[:1])"),
        (SECOND, ["deep_knn_small"], "(~certain).nonzero()"),
        (THIRD, ["cpcae_knn_small", "model.residual_folds=2"], ".cpu().numpy()"),
        ("", ["prff_small"], "suspicious.nonzero()"),  # only suspicious images are computed again
    ],
)
def test_the_known_waits_are_waits(wait, recipe, line, fitted):
    """So the list has no dead entry, and a wait is seen where there is one."""
    mode = FakeTensorMode()
    there = faked(fitted(*recipe), mode)
    with mode, without_waits(*(name for name in WAITS if name != wait)):
        image = torch.rand(2, 3, SIDE, SIDE, device="cuda")
        with pytest.raises((*WAITED, RuntimeError)) as caught:
            used(there, image, "float32")
    assert any(line in str(entry.statement) for entry in caught.traceback)


class Planted(nn.Module):
    """A part with one of the faults that the contract is for."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, image: Tensor) -> Tensor:
        if self.fault == "wait":
            return image * image.mean().item()
        if self.fault == "elsewhere":
            return image * torch.ones(3, 1, 1)
        return torch.nn.functional.conv2d(image.half(), torch.ones(1, 3, 1, 1, device=image.device))


@pytest.mark.parametrize("fault", ["wait", "elsewhere", "mixed types"])
def test_a_planted_fault_is_found(fault):
    with FakeTensorMode(), pytest.raises((*WAITED, RuntimeError)):
        Planted(fault)(torch.rand(2, 3, 8, 8, device="cuda"))
