"""A training step of DRAEM beside anomalib's DraemModel: same widths, losses, batch and data, in turn.

    python -m tests.bench.bench_training [--tiny] [SIDE] [IMAGES]

On a CPU both run in float32, 128 px and 2 images a step; a ratio of 1.2 is the aim. On a GPU (256 px, 8
images) the peer runs as it comes, in float32, and ours as trainer=gpu_bf16 does; 2.5 is the aim. Needs the
extra: pip install -e .[peers]; --tiny: ours alone, with the widths of draem_small.
"""

import os
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from anomaly_lab.layers.losses import draem_loss
from anomaly_lab.types import TrainBatch
from tests.support.stepping import drawn, flops, matrix_peak, step_of, timed

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
    batch = drawn(size.images, size.side, device)
    ours = step_of([f"model={'draem_small' if tiny else 'draem'}", "data=demo"], batch, bf16=gpu)
    work = flops(ours)
    if tiny:
        one = timed(ours, device)
        print(f"  anomaly_lab {one:7.3f} s, no peer")
    else:
        theirs = their_step(batch)
        theirs()
        one = compare(ours, theirs, size.images, device)
    rate = work / one
    peak = matrix_peak(device, size.matrix, torch.bfloat16 if gpu else torch.float32)
    best = f"the {peak / 1e12:.3f} that a matrix product reaches"
    print(f"ours does {rate / 1e12:.3f} TFLOP/s, {rate / peak:.0%} of {best}")


def compare(ours: Callable[[], None], theirs: Callable[[], None], count: int, device: torch.device) -> float:
    """Print the seconds of both, measured in turn, and return the median of ours."""
    turns = 20 if device.type == "cuda" else 1
    times = [(timed(ours, device, turns), timed(theirs, device, turns)) for _ in range(ROUNDS)]
    for one, other in times:
        print(f"  anomaly_lab {one:7.3f} s, anomalib {other:7.3f} s, ratio {other / one:4.2f}")
    one, other = (median(column) for column in zip(*times, strict=True))
    print(f"medians: {count / one:.2f} against {count / other:.2f} images/s, ratio {other / one:.2f}")
    return one


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


if __name__ == "__main__":
    main(sys.argv[1:])
