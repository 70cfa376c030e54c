"""A training step of DRAEM beside anomalib's DraemModel: same widths, losses, batch and data, alternately in one run.

    python -m tests.bench.bench_training [SIDE] [IMAGES]

On a CPU both run in float32, 128 px and 2 images a step; a ratio of 1.2 is the aim. On a GPU (256 px, 8 images) the
peer runs as it comes, in float32, and ours as trainer=gpu_bf16 does; 2.5 is the aim. Needs the extra: pip install -e
.[peers]
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from anomaly_lab.nn.losses import draem_loss
from anomaly_lab.types import TrainBatch

CONF = Path(__file__).parents[2] / "conf" / "model" / "draem.yaml"
ROUNDS = 3


def main(side: int, count: int, device: torch.device) -> None:
    try:
        from anomalib.models.image.draem.torch_model import DraemModel
    except ImportError as error:
        sys.exit(f"{error}; for this comparison: pip install -e .[peers]")
    clean = torch.rand(count, 3, side, side, device=device)
    mask = torch.rand(count, side, side, device=device) > 0.9
    batch = TrainBatch(torch.where(mask[:, None], 1 - clean, clean), clean, mask)
    gpu = device.type == "cuda"
    ours = instantiate(OmegaConf.load(CONF).model, _convert_="all").to(device)
    ours.steps, ours.log_dict = 1000, lambda *_, **__: None
    optimizer = ours.configure_optimizers()["optimizer"]
    theirs = DraemModel().to(device).train()
    their_optimizer = torch.optim.Adam(theirs.parameters(), 1e-4)

    def our_step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if gpu else contextlib.nullcontext():
            loss = ours.training_step(batch, 0)
        loss.backward()
        optimizer.step()

    def their_step() -> None:
        their_optimizer.zero_grad()
        reconstruction, logits = theirs(batch.image)
        losses = draem_loss(
            reconstruction, logits.softmax(1)[:, 1], batch, ssim_weight=1.0, ssim_range="unit", focal_gamma=2.0
        )
        torch.stack(list(losses.values())).sum().backward()
        their_optimizer.step()

    flops = FlopCounterMode(display=False)
    with flops:
        our_step()
    their_step()
    times = [(timed(our_step, gpu), timed(their_step, gpu)) for _ in range(ROUNDS)]
    for one, other in times:
        print(f"  anomaly_lab {one:7.3f} s, anomalib {other:7.3f} s, ratio {other / one:4.2f}")
    one, other = (median(column) for column in zip(*times, strict=True))
    print(f"medians: {count / one:.2f} against {count / other:.2f} images/s, ratio {other / one:.2f}")
    work, peak = flops.get_total_flops() / one, matrix_peak(device)
    print(
        f"ours does {work / 1e12:.3f} TFLOP/s, {work / peak:.0%} of the {peak / 1e12:.3f} that a matrix product reaches"
    )


def timed(step: Callable[[], None], gpu: bool) -> float:
    """Return the seconds of a step, the mean of twenty on a GPU."""
    turns = 20 if gpu else 1
    began = time.perf_counter()
    for _ in range(turns):
        step()
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / turns


def matrix_peak(device: torch.device) -> float:
    """Return the best FLOP/s of ten products of two large matrices, bfloat16 on a GPU, float32 on a CPU."""
    gpu = device.type == "cuda"
    n = 8192 if gpu else 2048
    a = torch.rand(n, n, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    return max(2 * n**3 / timed(lambda: a @ a, gpu) for _ in range(10))


if __name__ == "__main__":
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    there = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = (256, 8) if there.type == "cuda" else (128, 2)
    torch.backends.cudnn.benchmark = True  # trainer=gpu_bf16 sets it; the peer gets it, too
    given = [int(value) for value in sys.argv[1:3]]
    main(*given, *default[len(given) :], device=there)
