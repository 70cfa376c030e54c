"""Every method on a CUDA device that only shapes know: no tensor stays on the CPU, no batch waits unasked.

PyTorch's FakeTensorMode computes shapes, types and devices, not values, so the largest recipe costs no
arithmetic. A value that Python asks for is an error there, and so is a copy to the CPU; on a real device both
wait. The known ones are replaced, each for a reason.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from anomaly_lab.config.building import instantiate
from anomaly_lab.estimators import gmm, knn
from anomaly_lab.layers import maps
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.methods.prff.method import Prff
from anomaly_lab.types import Prediction, TrainBatch
from tests.support.export import OLD
from tests.support.runs import composed, options
from tests.support.supervision import given
from tests.support.train_batches import unlabelled
from tests.support.training import told

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(OLD, reason="torch 2.6 asks a driver for fake tensors, too; up to 2.13 was not tried"),
]

RECIPES = options("model")
SMALL = [name for name in RECIPES if name.endswith("_small")]


class CopyError(RuntimeError):
    """A tensor was copied from the device or to it, and the CPU waits until it is there."""


WAITED = (DataDependentOutputException, DynamicOutputShapeException, CopyError)


COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Watched(TorchDispatchMode):
    """Raises where a tensor is copied between CPU and device; to a FakeTensorMode alone that is no error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in COPIES:
            source = args[0] if func is COPIES[0] else args[1]
            here, there = source.device.type, made.device.type
            # What is not waited for, and batches of images: to an end of a fit they come as to a trainer.
            queued = there == "cuda" and ((kwargs or {}).get("non_blocking") or source.dim() == 4)
            if here != there and not queued:
                raise CopyError(f"{func} waits for the device")
        return made


def searched_once(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return knn._search(queries.float(), bank.float(), count, torch.float32)[:2]


def climbed_once(mixture: Any, vectors: Tensor, start: gmm.Mixture, form: gmm.Form) -> tuple[float, Any]:
    shares = gmm.log_joint(vectors, start).exp()
    return 0.0, gmm.maximise(vectors, shares, form, mixture.ridge)


class Wait(NamedTuple):
    """What waits for the device, where it is called by which name, and what stands for it here."""

    names: tuple[str, ...]
    reason: str
    line: str  # of the source, that waits
    instead: Callable[..., Any]
    recipe: tuple[str, ...]  # one in which it waits


# In a batch of a training, a fit or a test.
OF_A_BATCH = [
    Wait(
        ("backbones.cached.CachedExtractor.__call__",),
        "images are known by their content: the last batch is drawn, and the cache has features on the disk",
        ".float().cpu().numpy()",
        lambda self, image: self.extractor(image),
        ("padim_small",),
    ),
    Wait(
        ("estimators.knn.nearest", "methods.patchcore.nearest", "estimators.gmm.nearest"),
        "which queries rounding left unsure: they are searched again in float64",
        "(~certain).nonzero()",
        searched_once,
        ("deep_knn_small",),
    ),
    Wait(
        ("methods.cpcae_knn.CpcaeKnn._folds",),
        "whose fold an image is in, by its content; only with model.residual_folds above 1",
        ".cpu().numpy()",
        lambda self, image: torch.zeros(len(image), dtype=torch.int64, device=image.device),
        ("cpcae_knn_small", "model.residual_folds=2"),
    ),
]
# Once, at the end of a fit.
OF_AN_END = [
    Wait(
        ("methods.patchcore.digest",),
        "a chosen coreset is kept by the content of all patches",
        "digest(",
        lambda *parts: "",
        ("patchcore_small",),
    ),
    Wait(
        ("methods.patchcore.greedy_coreset",),
        "each choice depends on those before it; draws are made on the CPU, alike for every device",
        "greedy_coreset(",
        lambda patches, count, *_: torch.arange(count, device=patches.device),
        ("patchcore_small",),
    ),
    Wait(
        ("backbones.cache.Cache.tensor",),
        "a chosen coreset is kept on the disk",
        "compute().cpu().numpy()",
        lambda self, key, compute, *_: compute(),
        ("patchcore_small",),
    ),
    Wait(
        ("estimators.reduce.enough",),
        "how many components explain the variance decides a shape; the sum in running order is the CPU's",
        "spread.square().cpu()",
        lambda spread, variance: len(spread),
        ("hit_milf_small",),
    ),
    Wait(
        ("estimators.gmm.drawn",),
        "the first centres are drawn on the CPU, alike for every device",
        "int(torch.",
        lambda count, weights, generator: 0,
        ("hit_milf_small",),
    ),
    Wait(
        ("estimators.gmm.GaussianMixture._climb",),
        "expectation maximisation ends when the likelihood gains too little",
        "likelihood.mean().item()",
        climbed_once,
        ("hit_milf_small",),
    ),
]


MATRIX = maps._matrix


def matrix_with_values(*arguments: Any) -> Any:
    """Return what `enlarged` multiplies by: a constant that the CPU makes once."""
    with torch.utils._python_dispatch._disable_current_modes():
        return MATRIX(*arguments)


# One part of the work is as good as many; what weights are known by in the cache is digested once a process.
FEWER = {f"estimators.{name}.WORKING_NUMBERS": 2**50 for name in ("gaussian", "knn")}
FEWER |= {"estimators.gmm.LLOYD_STEPS": 1, "layers.maps._matrix": matrix_with_values}
FEWER["backbones.cached.CachedExtractor._identified"] = lambda self: [""] * len(self.extractor.layers)


@contextlib.contextmanager
def without(waits: list[Wait]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for wait in waits:
            for name in wait.names:
                patch.setattr(f"anomaly_lab.{name}", wait.instead)
        for name, value in FEWER.items():
            patch.setattr(f"anomaly_lab.{name}", value)
        yield


class Trainer:
    """What CPCAE-kNN asks its trainer at the end of an epoch."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.global_step = 10**9
        self.precision_plugin = SimpleNamespace(forward_context=lambda: autocast(dtype))


def autocast(dtype: torch.dtype | None) -> Any:
    return torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None)


@contextlib.contextmanager
def on_the_device(waits: list[Wait]) -> Iterator[FakeTensorMode]:
    with FakeTensorMode() as mode, Watched(), without(waits):
        yield mode


def built(mode: FakeTensorMode, model: str, *further: str) -> tuple[AnomalyMethod, tuple[int, int]]:
    """Return a recipe's method as it is on the fake device, and its image size; nothing has values."""
    shorter = ["model.swin_upernet.depths=[2,2,2,2]"] if model == "prff" else []  # a block is like another
    cfg = composed(f"model={model}", "data=demo", "cache.gigabytes=0", *shorter, *further)
    side = cfg.data.center_crop or cfg.data.image_size
    with torch.utils._python_dispatch._disable_current_modes(), torch.device("meta"):
        method = instantiate(cfg.model, _convert_="all")
    for part in method.modules():
        for kind in (part._parameters, part._buffers):
            kind.update({name: moved(value) for name, value in kind.items() if value is not None})
    method._device = torch.device("cuda:0")  # with a number, else Lightning asks a driver for it
    method.log_dict = lambda *_, **__: None
    return told(method), (side, side) if isinstance(side, int) else tuple(side)


def moved(value: Tensor) -> Tensor:
    there = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
    return nn.Parameter(there, value.requires_grad) if isinstance(value, nn.Parameter) else there


def trained(method: AnomalyMethod, size: tuple[int, int], dtype: torch.dtype | None) -> list[Tensor]:
    """Do a training's batches and what follows an epoch; return the losses and what a fit has learned."""
    losses = []
    images = [drawn(count, size) for count in ((3, 2) if isinstance(method, SinglePassMethod) else (2,))]
    method.train()
    with autocast(dtype):
        for image in images:
            mask = torch.zeros(len(image), *image.shape[2:], dtype=torch.bool, device="cuda")
            losses.append(method.training_step(given(method, unlabelled(image, image, mask)), 0))
    method.plan = method.plan._replace(normals=[torch.rand(image.shape) for image in images])
    method._trainer = Trainer(dtype)
    method.on_train_epoch_end()
    learned = [value for name, value in method.named_buffers() if name.endswith("_")]
    return [value for value in (*losses, *learned) if value is not None]


def used(
    method: AnomalyMethod, size: tuple[int, int], dtype: torch.dtype | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Do with a batch all that a test does; return what has to be float32, and the panels."""
    image = drawn(2, size)
    with autocast(dtype), torch.no_grad():
        prediction: Prediction = method.eval()(image)
        panels, embedding = method.panels(image), method.embed(image)
    return [value for value in (*prediction, embedding) if value is not None], list(panels.values())


def drawn(count: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *size, device="cuda")


quietly = pytest.mark.filterwarnings("ignore:.*CUDA is not available")


def found(exact: list[Tensor], panels: Sequence[Tensor] = ()) -> tuple[set[str], set[torch.dtype]]:
    """Return the devices of all, and the floating types of what has to be float32."""
    devices = {value.device.type for value in (*exact, *panels)}
    return devices, {value.dtype for value in exact if value.is_floating_point()}


# In float32 all is done, and in each half type either the training and the end of a fit, or the test; a large
# and a small recipe of a method have it the other way round. Nothing is lost: autocast treats both half types
# alike, operation by operation, so what mixes one of them with float32 would mix the other one too.
def steps(model: str) -> list[tuple[torch.dtype | None, tuple[bool, bool]]]:
    """Return what is done: the type, and whether it trains and tests in it."""
    halves = (torch.bfloat16, torch.float16)
    first, second = halves[::-1] if model in SMALL else halves
    return [(None, (True, True)), (first, (True, False)), (second, (False, True))]


@quietly
@pytest.mark.parametrize("model", RECIPES)
def test_a_fit_and_a_test_stay_on_the_device_and_wait_for_nothing_unknown(model):
    with on_the_device([*OF_A_BATCH, *OF_AN_END]) as mode:
        method, size = built(mode, model)
        if isinstance(method, Prff):  # which images get a further pass is a wait, below
            method.progressive = dataclasses.replace(method.progressive, iterations=1)
        for dtype, (trains, tests) in steps(model):
            exact, panels = trained(method, size, dtype) if trains else [], []
            if tests:
                of_test, panels = used(method, size, dtype)
                exact += of_test
            assert found(exact, panels) == ({"cuda"}, {torch.float32})


def done(model: str, *further: str, waits: list[Wait], fault: Callable[..., None] | None = None) -> None:
    """Fit and test a recipe in float32, with these waits replaced and perhaps a fault planted."""
    with on_the_device(waits) as mode:
        method, size = built(mode, model, *further)
        if fault is not None:
            fault(method)
        trained(method, size, None)
        used(method, size, None)


def seen_at(caught: pytest.ExceptionInfo[BaseException], line: str) -> bool:
    """Say whether a line of this project was on the way to the error."""
    return any(line in str(entry.statement) for entry in caught.traceback)


@quietly
@pytest.mark.parametrize("wait", [*OF_A_BATCH, *OF_AN_END], ids=lambda wait: wait.names[0])
def test_the_known_waits_are_waits(wait):
    """So the lists have no dead entry, and a wait is seen where there is one."""
    others = [other for other in (*OF_A_BATCH, *OF_AN_END) if other is not wait]
    with pytest.raises((*WAITED, RuntimeError)) as caught:
        done(*wait.recipe, waits=others)
    assert seen_at(caught, wait.line)


@quietly
def test_only_suspicious_images_are_computed_again():
    with on_the_device(OF_A_BATCH) as mode, pytest.raises(WAITED) as caught:
        used(*built(mode, "prff_small", "model.discriminator=unet"), None)
    assert seen_at(caught, "suspicious.nonzero()")


# What the contract is for: of a batch x on the device, of its mean m.
FAULTS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.mean().item(),
    "numpy": lambda x: x.numpy(),
    "tolist": lambda x: x.flatten(1).mean(dim=1).tolist(),
    "cpu": lambda x: x.cpu(),
    "truth": lambda x: bool((x > 0).all()),
    "equal": lambda x: torch.equal(x, x + 1),
    "nonzero": lambda x: (x > 0).nonzero(),
    "bool index": lambda x: x[x > 0],
    "from the CPU": lambda x: x[:, :, 0] * torch.tensor([1.0] * x.shape[3]).to(x.device),
    "left on the CPU": lambda x: x * torch.ones(3, 1, 1),
    "mixed types": lambda x: torch.nn.functional.conv2d(x.half(), x[:1, :, :3, :3]),
}
PLACES = {"collect": "patchcore_small", "update": "variation", "fit": "patchcore_small"}
PLACES |= {"training_step": "ae_l2_small", "on_train_epoch_end": "ae_l2_small", "forward": "deep_knn_small"}


@quietly
@pytest.mark.parametrize(
    ("fault", "place"), [*((fault, "update") for fault in FAULTS), *(("cpu", place) for place in PLACES)]
)
def test_a_planted_fault_is_found(fault, place):
    """Each fault, and one in each place where a method computes: a batch, the end of a fit, a test."""

    def plant(method: AnomalyMethod) -> None:
        sound = getattr(method, place)

        def unsound(*arguments: Any) -> Any:
            given = arguments[0] if arguments else drawn(2, (64, 64))
            image = given.image if isinstance(given, TrainBatch) else given
            FAULTS[fault](image if image.dim() == 4 and image.shape[1] == 3 else drawn(2, (64, 64)))
            return sound(*arguments)

        setattr(method, place, unsound)

    with pytest.raises((*WAITED, RuntimeError)) as caught:
        done(PLACES[place], waits=[*OF_A_BATCH, *OF_AN_END], fault=plant)
    assert seen_at(caught, "FAULTS[fault](image")


@quietly
@pytest.mark.parametrize("where", ["cpu", "half"])
def test_what_a_fit_leaves_elsewhere_or_in_another_type_is_found(where):
    """Of what is learned: a bank on the CPU, or in half precision, makes no operation fail by itself."""

    def plant(method: AnomalyMethod) -> None:
        sound = method.finish

        def unsound() -> None:
            sound()
            method.mean_ = torch.rand(method.mean_.shape) if where == "cpu" else method.mean_.half()

        method.finish = unsound

    with on_the_device([]) as mode:
        method, size = built(mode, "variation")
        plant(method)
        assert found(trained(method, size, None)) != ({"cuda"}, {torch.float32})
