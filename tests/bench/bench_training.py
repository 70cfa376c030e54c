"""A training step of DRAEM beside anomalib's DraemModel: same widths, losses, batch and data, in turn.

    python -m tests.bench.bench_training [--tiny] [SIDE] [IMAGES]

On a CPU both run in float32, 128 px and 2 images a step; a ratio of 1.2 is the aim. On a GPU (256 px, 8
images) the peer runs as it comes, in float32, and ours as trainer=gpu_bf16 does; 2.5 is the aim. Needs the
extra: pip install -e .[peers]; --tiny: ours alone, with the widths of draem_small.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from anomaly_lab.layers.losses import draem_loss
from anomaly_lab.types import TrainBatch
from tests.support.training import told

CONF = Path(__file__).parents[2] / "conf" / "model"
ROUNDS = 3


class Size(NamedTuple):
    """How much is measured."""

    side: int
    images: int  # of a step
    matrix: int  # side of the product that tells the device's peak


TINY = Size(64, 1, 128)


def main(arguments: Sequence[str]) -> None:
    """Print seconds of a step of both sides, and the share of the device's peak that ours uses."""
    tiny = "--tiny" in arguments
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    gpu = device.type == "cuda"
    default = TINY if tiny else Size(256, 8, 8192) if gpu else Size(128, 2, 2048)
    given = [int(word) for word in arguments if word != "--tiny"]
    torch.backends.cudnn.benchmark = True  # trainer=gpu_bf16 sets it; the peer gets it, too
    size = Size(*given, *default[len(given) :])
    batch = drawn(size, device)
    flops = FlopCounterMode(display=False)
    ours = our_step("draem_small" if tiny else "draem", batch, gpu=gpu)
    theirs = None if tiny else their_step(batch)
    with flops:
        ours()
    if theirs is None:
        one = timed(ours, gpu)
        print(f"  anomaly_lab {one:7.3f} s, no peer")
    else:
        theirs()
        one = compare(ours, theirs, size.images, gpu=gpu)
    work, peak = flops.get_total_flops() / one, matrix_peak(device, size.matrix)
    best = f"the {peak / 1e12:.3f} that a matrix product reaches"
    print(f"ours does {work / 1e12:.3f} TFLOP/s, {work / peak:.0%} of {best}")


def compare(ours: Callable[[], None], theirs: Callable[[], None], count: int, *, gpu: bool) -> float:
    """Print the seconds of both, measured in turn, and return the median of ours."""
    times = [(timed(ours, gpu), timed(theirs, gpu)) for _ in range(ROUNDS)]
    for one, other in times:
        print(f"  anomaly_lab {one:7.3f} s, anomalib {other:7.3f} s, ratio {other / one:4.2f}")
    one, other = (median(column) for column in zip(*times, strict=True))
    print(f"medians: {count / one:.2f} against {count / other:.2f} images/s, ratio {other / one:.2f}")
    return one


def drawn(size: Size, device: torch.device) -> TrainBatch:
    """Return a batch of noise whose masked pixels are inverted."""
    clean = torch.rand(size.images, 3, size.side, size.side, device=device)
    mask = torch.rand(size.images, size.side, size.side, device=device) > 0.9
    return TrainBatch(torch.where(mask[:, None], 1 - clean, clean), clean, mask)


def our_step(model: str, batch: TrainBatch, *, gpu: bool) -> Callable[[], None]:
    """Return a training step of this project's recipe, on a GPU in bfloat16."""
    device = batch.image.device
    method = told(instantiate(OmegaConf.load(CONF / f"{model}.yaml").model, _convert_="all"), steps=1000)
    method.to(device).log_dict = lambda *_, **__: None
    optimizer = method.configure_optimizers()["optimizer"]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if gpu else contextlib.nullcontext():
            loss = method.training_step(batch, 0)
        loss.backward()
        optimizer.step()

    return step


def their_step(batch: TrainBatch) -> Callable[[], None]:
    """Return a training step of the peer."""
    try:
        from anomalib.models.image.draem.torch_model import DraemModel
    except ImportError as error:
        sys.exit(f"{error}; for this comparison: pip install -e .[peers]")
    method = DraemModel().to(batch.image.device).train()
    optimizer = torch.optim.Adam(method.parameters(), 1e-4)
    weights = {"ssim_weight": 1.0, "ssim_range": "unit", "focal_gamma": 2.0}

    def step() -> None:
        optimizer.zero_grad()
        reconstruction, logits = method(batch.image)
        losses = draem_loss(reconstruction, logits.softmax(1)[:, 1], batch, **weights)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], gpu: bool) -> float:
    """Return the seconds of a step, the mean of twenty on a GPU."""
    turns = 20 if gpu else 1
    began = time.perf_counter()
    for _ in range(turns):
        step()
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / turns


def matrix_peak(device: torch.device, side: int) -> float:
    """Return the best FLOP/s of ten products of two large matrices, bfloat16 on a GPU, float32 on a CPU."""
    gpu = device.type == "cuda"
    a = torch.rand(side, side, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    return max(2 * side**3 / timed(lambda: a @ a, gpu) for _ in range(10))


if __name__ == "__main__":
    main(sys.argv[1:])
