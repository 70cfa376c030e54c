"""What a recipe costs: the sizes of what it holds and computes, and how long it takes to score an image."""

import io
import re
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from anomaly_lab.config.building import instantiate
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.training import told

MB = 1e6


class Cost(NamedTuple):
    """Of one recipe; MB are of 10^6 bytes."""

    recipe: str
    supervised: bool
    size: tuple[int, int]  # (H, W) of the image
    parameters: int
    trained: int  # of them, by gradients
    parameters_mb: float
    learned_mb: float  # in buffers: what was fitted to ``images`` images, and statistics of norms
    learned_mb_an_image: float  # by which it grows with a further image
    images: int
    forward_mb: float
    backward_mb: float
    checkpoint_mb: float
    onnx_mb: float | None
    no_onnx: str  # the reason
    milliseconds: float  # to score an image
    repeats: int  # whose median that is


class Plan(NamedTuple):
    """How it is measured."""

    images: int  # of noise that fitted methods learn from, and half as many to see how they grow
    repeats: int
    warm_ups: int
    limit: float  # seconds after which no further image is scored
    onnx: bool
    device: torch.device


def cost_of(recipe: str, plan: Plan, *overrides: str) -> Cost:
    """Measure a recipe with random weights, in float32, without its cache of features."""
    method, size = ready(recipe, plan, *overrides)
    half = plan._replace(images=plan.images // 2)
    fitted = any(name.endswith("_") for name, _ in method.named_buffers())
    fewer = learned_mb(ready(recipe, half, *overrides)[0]) if fitted else learned_mb(method)
    image = noise(1, size, plan.device, seed=1)
    forward, backward = activations_mb(method, image)
    onnx, reason = onnx_mb(method, image) if plan.onnx else (None, "not asked for")
    took, repeats = milliseconds(method, size, plan)
    weights = list(method.parameters())
    return Cost(
        recipe=recipe,
        supervised=method.supervised,
        size=size,
        parameters=sum(weight.numel() for weight in weights),
        trained=sum(weight.numel() for weight in weights if weight.requires_grad) if gradients(method) else 0,
        parameters_mb=sum(weight.nbytes for weight in weights) / MB,
        learned_mb=learned_mb(method),
        learned_mb_an_image=(learned_mb(method) - fewer) / (plan.images - half.images),
        images=plan.images,
        forward_mb=forward,
        backward_mb=backward,
        checkpoint_mb=checkpoint_mb(method),
        onnx_mb=onnx,
        no_onnx=reason,
        milliseconds=took,
        repeats=repeats,
    )


def ready(recipe: str, plan: Plan, *overrides: str) -> tuple[AnomalyMethod, tuple[int, int]]:
    """Return a recipe's method, fitted to noise where it is fitted, and the (H, W) of its images."""
    torch.manual_seed(0)
    cfg = composed(f"model={recipe}", "data=demo", "cache.gigabytes=0", *overrides)
    content = random_weights(OmegaConf.to_container(cfg.model, resolve=True))
    method: AnomalyMethod = instantiate(content, _convert_="all")
    side = cfg.data.center_crop or cfg.data.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)
    method.to(plan.device)
    method.log_dict = lambda *_, **__: None
    told(method, **({"anomalies": 1} if method.supervised else {}))
    learned_at_the_end(method, size, plan)
    return method.eval(), size


def random_weights(content: Any) -> Any:
    """Return plain content with the pretrained weights that it names replaced by random ones."""
    if isinstance(content, list):
        return [random_weights(value) for value in content]
    if not isinstance(content, dict):
        return content
    pretrained = {"weights": "random"} if content.get("weights") in {"imagenet", "bundled"} else {}
    return {key: random_weights(value) for key, value in content.items()} | pretrained


def learned_at_the_end(method: AnomalyMethod, size: tuple[int, int], plan: Plan) -> None:
    """Fit what is fitted instead of trained: after the only epoch, or after a training's last step."""
    images = noise(plan.images, size, plan.device)
    if isinstance(method, SinglePassMethod):
        for image in images.split(4):
            method.training_step(labelled(image, method), 0)
    # What a fit at the end of a training asks for.
    method.plan = method.plan._replace(normals=list(images.split(4)))
    precision = SimpleNamespace(forward_context=nullcontext)
    method._trainer = SimpleNamespace(global_step=10**9, precision_plugin=precision)
    method.on_train_epoch_end()
    method._trainer = None


def noise(count: int, size: tuple[int, int], device: torch.device, seed: int = 0) -> Tensor:
    """Return (count, 3, H, W) images of 8 bits, float32 in [0, 1]."""
    drawn = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 256, (count, 3, *size), generator=drawn) / 255).to(device)


def labelled(image: Tensor, method: AnomalyMethod) -> TrainBatch:
    """Return a training batch of these images; a quarter of each is anomalous where anomalies are learned."""
    mask = torch.zeros(len(image), *image.shape[2:], dtype=torch.bool, device=image.device)
    if method.pseudo or method.supervised:
        mask[:, : image.shape[2] // 2, : image.shape[3] // 2] = True
    changed = torch.where(mask[:, None], 1 - image, image)
    clean = changed if method.supervised else image
    return TrainBatch(changed, clean, mask, mask.flatten(1).any(dim=1) & method.supervised)


def gradients(method: AnomalyMethod) -> bool:
    """Say whether it is trained by gradients."""
    return not isinstance(method, SinglePassMethod)


def learned_mb(method: AnomalyMethod) -> float:
    """Return the size of what a checkpoint keeps beside the parameters."""
    weights = dict(method.named_parameters())
    return sum(value.nbytes for key, value in method.state_dict().items() if key not in weights) / MB


def activations_mb(method: AnomalyMethod, image: Tensor) -> tuple[float, float]:
    """Return the size of what the modules give for an image, and of the gradients that reach it in training.

    Hooks see the output of each module that has no other inside; what functions compute is not seen, and what
    is written in place counts again.
    """
    with torch.no_grad(), watched(method, backward=False) as forward:
        method(image)
    if not gradients(method):
        return sum(forward) / MB, 0.0
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with watched(method.train(), backward=True) as backward:
        method.training_step(labelled(image, method), 0).backward()
    method.zero_grad()
    method.eval().load_state_dict(state)
    return sum(forward) / MB, sum(backward) / MB


@contextmanager
def watched(method: nn.Module, *, backward: bool) -> Iterator[list[int]]:
    """Collect the bytes of each output of a leaf module, or of each gradient that comes back to one."""
    seen: list[int] = []

    def on_output(module: nn.Module, given: Any, made: Any) -> None:
        for value in made if isinstance(made, list | tuple) else [made]:
            if not isinstance(value, Tensor):
                continue
            if not backward:
                seen.append(value.nbytes)
            elif value.requires_grad:
                value.register_hook(lambda gradient: seen.append(gradient.nbytes))

    leaves = [part for part in method.modules() if part is not method and not any(part.children())]
    handles = [leaf.register_forward_hook(on_output) for leaf in leaves]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def checkpoint_mb(method: AnomalyMethod) -> float:
    """Return the size of its state as torch saves it."""
    written = io.BytesIO()
    torch.save({"state_dict": method.state_dict()}, written)
    return len(written.getbuffer()) / MB


def onnx_mb(method: AnomalyMethod, image: Tensor) -> tuple[float | None, str]:
    """Return the size of its ONNX graph for such an image, its weights included; or None, and why."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings(action="ignore"):
        file = Path(temporary) / "method.onnx"
        try:
            how = {"dynamo": True, "verbose": False, "optimize": False}
            torch.onnx.export(method, (image,), file, **how)
        except Exception as error:  # the exporter, and what it calls, each raise their own
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            sentence = re.split(r"\.\s|\n", str(cause).strip(), maxsplit=1)[0]
            return None, f"{type(cause).__name__}: {sentence}"[:160]
        return sum(part.stat().st_size for part in Path(temporary).iterdir()) / MB, ""


def milliseconds(method: AnomalyMethod, size: tuple[int, int], plan: Plan) -> tuple[float, int]:
    """Return the median time to score one image, and of how many passes it is; the device is waited for.

    Each pass has an image of its own, as features of the last one are remembered.
    """
    taken: list[float] = []
    with torch.inference_mode():
        for turn in range(plan.warm_ups + plan.repeats):
            image = noise(1, size, plan.device, seed=1000 + turn)
            waited(plan.device)
            began = time.perf_counter()
            method(image)
            waited(plan.device)
            if turn >= plan.warm_ups:
                taken.append(time.perf_counter() - began)
            if taken and sum(taken) > plan.limit:
                break
    return 1000 * median(taken), len(taken)


def waited(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_name(device: torch.device) -> str:
    """Return what the device calls itself, with the threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else 'CPU'}, {threads} thread{'s' * (threads > 1)}"
