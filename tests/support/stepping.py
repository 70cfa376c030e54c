"""A training step of a recipe outside any run, and how long it takes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from anomaly_lab.config.building import instantiate
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.supervision import given
from tests.support.train_batches import inverted
from tests.support.training import told


def drawn(count: int, side: int, device: torch.device) -> TrainBatch:
    """Return a batch of noise whose masked pixels are inverted."""
    clean = torch.rand(count, 3, side, side, device=device)
    mask = torch.rand(count, side, side, device=device) > 0.9
    return inverted(clean, mask)


def step_of(
    overrides: Sequence[str], batch: TrainBatch, *, bf16: bool = False, compiled: bool = False
) -> Callable[[], Any]:
    """Return a training step, forward, backward and optimizer, of the recipe that the overrides name."""
    device = batch.image.device
    cfg = composed(*overrides, f"trainer.compile={str(compiled).lower()}", f"trainer.device={device.type}")
    method = told(instantiate(cfg.model, _convert_="all"), steps=1000)
    batch = given(method, batch)
    method.to(device).log_dict = lambda *_, **__: None
    instantiate(cfg.trainer).compile_networks(method)
    found = method.configure_optimizers()
    optimizer = found if isinstance(found, torch.optim.Optimizer) else found["optimizer"]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = method.training_step(batch, 0)
        loss.backward()
        optimizer.step()

    return step


def timed(step: Callable[[], Any], device: torch.device, turns: int = 1) -> float:
    """Return the seconds of a step, the mean of so many."""
    waited(device)
    began = time.perf_counter()
    for _ in range(turns):
        step()
    waited(device)
    return (time.perf_counter() - began) / turns


def waited(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def flops(step: Callable[[], Any]) -> int:
    """Do a step; return its floating point operations, as torch counts those of products and convolutions."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops()


def matrix_peak(device: torch.device, side: int, dtype: torch.dtype) -> float:
    """Return the best FLOP/s of ten times some products of two large matrices."""
    a = torch.rand(side, side, device=device).to(dtype)
    turns = 20 if device.type == "cuda" else 1
    return max(2 * side**3 / timed(lambda: a @ a, device, turns) for _ in range(10))
