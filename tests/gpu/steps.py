"""A training step of the large recipes: images/s, memory, and how much of the device's peak it uses."""

import gc
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from tests.gpu.report import Report
from tests.support.runs import composed
from tests.support.stepping import drawn, flops, matrix_peak, step_of, timed, waited

# Offline there are no ImageNet weights; random ones cost the same time.
LARGE = {"draem": [], "prff": [], "mlff": ["model.backbone.weights=random"], "vt_adl": []}
SMALL = {"draem_small": ["data.image_size=64", "data.batch_size=1"]}
LAST_START = 120  # seconds after the first; a step whose turn comes later is not measured


class Mode(NamedTuple):
    """How the products of a step are computed."""

    name: str
    peak: str  # the one that its share is of
    bf16: bool = False
    tf32: bool = False
    compiled: bool = False


MODES = (
    Mode("bf16", "bf16", bf16=True),
    Mode("float32", "float32"),
    Mode("tf32", "tf32", tf32=True),
    Mode("bf16, compiled", "bf16", bf16=True, compiled=True),
)


def measure_steps(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Add the peaks, then a row for each mode and recipe; compiled ones, which take longest, come last."""
    began = time.monotonic()
    peaks = report.add("peak_tflops", measured_peaks(device, side=128 if tiny else 8192))
    recipes = SMALL if tiny else LARGE
    work: dict[str, int] = {}  # of a recipe's step
    for mode in MODES[:2] if tiny else MODES:
        for name, further in recipes.items():
            if time.monotonic() - began > LAST_START and not tiny:
                row: dict[str, Any] = {"failed": "not measured: no time left"}
            else:
                row = measured([f"model={name}", "data=demo", *further], mode, device, tiny=tiny)
            if "flops" in row:
                work[name] = row.pop("flops")
            if "seconds" in row and name in work:
                rate = work[name] / row["seconds"] / 1e12
                row |= {"tflops": rate, "share_of_peak": rate / peaks[mode.peak]}
            report.append("steps", {"model": name, "mode": mode.name} | row)


def measured_peaks(device: torch.device, side: int) -> dict[str, float]:
    """Return the TFLOP/s of a matrix product in each kind of number."""
    peaks = {}
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        allow(tf32=name == "tf32")
        peaks[name] = matrix_peak(device, side, dtype) / 1e12
    return peaks


def allow(*, tf32: bool) -> None:
    """Set what `TrainerSettings` sets."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def measured(recipe: Sequence[str], mode: Mode, device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Return the figures of a step, or why there are none.

    The first step finds the kernels, which may take a minute; those of an uncompiled one are counted there.
    """
    allow(tf32=mode.tf32)
    torch.backends.cudnn.benchmark = mode.bf16  # as trainer=gpu_bf16 sets it
    torch._dynamo.reset()
    torch.manual_seed(0)
    cfg = composed(*recipe)
    side, count = cfg.data.center_crop or cfg.data.image_size, cfg.data.batch_size
    batch = drawn(count, side, device)
    on_cuda = device.type == "cuda"
    if on_cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    row: dict[str, Any] = {"side": side, "batch_size": count}
    try:
        began = time.perf_counter()
        step = step_of(recipe, batch, bf16=mode.bf16, compiled=mode.compiled)
        if mode.compiled:
            step()
        else:
            row["flops"] = flops(step)
        waited(device)
        row["first_seconds"] = time.perf_counter() - began
        timed(step, device, 1 if tiny else 3)
        row["seconds"] = timed(step, device, 1 if tiny else 10)
    except RuntimeError as error:  # out of memory, an operation that the device lacks: the next mode goes on
        return {"failed": str(error).splitlines()[0][:200]}
    row["images_per_second"] = count / row["seconds"]
    row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30 if on_cuda else None
    return row
