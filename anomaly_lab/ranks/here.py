"""The processes that do one run together: which this one is, and what it takes of the work.

A process alone is rank 0 of 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch import distributed as dist

# A process that dies closes its connections, of which the others hear at once; this is for one that hangs.
# The first may work alone for long, as in choosing a coreset.
PATIENCE = timedelta(hours=2)


class Step(NamedTuple):
    """The images of the batch that all ranks work on."""

    start: int  # of this rank's images in the batch
    mine: int  # images of this rank; 0: it computes the last one of the batch along, which counts for nothing
    all: int


@final
class _Place:
    """Where this process is."""

    rank = 0
    size = 1
    local_rank = 0
    step: Step | None = None  # of a training; None outside of its steps


PLACE = _Place()


def rank() -> int:
    """Return the number of this process, from 0."""
    return PLACE.rank


def size() -> int:
    """Return how many processes do the run."""
    return PLACE.size


def local_rank() -> int:
    """Return the number of this process among those of its machine, from 0."""
    return PLACE.local_rank


def first() -> bool:
    """Say whether this is the one process that writes, draws and speaks."""
    return PLACE.rank == 0


@contextmanager
def joined(store: Any, rank: int, size: int, local_rank: int, device: torch.device) -> Iterator[None]:
    """Be a rank among others while the body runs; tensors of the CPU travel by gloo, those of CUDA by NCCL.

    Args:
        store: that all of them see, and that nobody used before.
        rank: of this process.
        size: processes in all.
        local_rank: of this process on its machine.
        device: that this one computes on.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    kinds = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(kinds, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    vars(PLACE).update(rank=rank, size=size, local_rank=local_rank)
    try:
        yield
    finally:
        vars(PLACE).clear()
        dist.destroy_process_group()


def shares(count: int) -> list[int]:
    """Return how many of so many images each rank takes: as even as can be, larger shares first."""
    least, more = divmod(count, PLACE.size)
    return [least + (rank < more) for rank in range(PLACE.size)]


def rows(count: int) -> slice:
    """Return which of so many rows this rank takes; in the order of the ranks they are all of them, once."""
    each = shares(count)
    start = sum(each[: PLACE.rank])
    return slice(start, start + each[PLACE.rank])


def portion(batch_size: int) -> int:
    """Return how many images this rank computes at once where all of them together make such batches."""
    return -(-batch_size // PLACE.size)


@contextmanager
def stepping(step: Step) -> Iterator[None]:
    """Say what the batch is that the body computes on, on every rank."""
    before = PLACE.step
    PLACE.step = step
    try:
        yield
    finally:
        PLACE.step = before


def step_of(count: int) -> Step:
    """Return the step of a batch of so many images."""
    mine = rows(count)
    return Step(mine.start, mine.stop - mine.start, count)


def counts() -> bool:
    """Say whether the images that this rank computes on count; if not, another rank has the last ones."""
    return PLACE.step is None or PLACE.step.mine > 0


def images_of_batch(local: int) -> int:
    """Return how many images the batch has of which ``local`` are here."""
    return local if PLACE.step is None else PLACE.step.all


# What is random in a step is drawn for the batch of all ranks, and each takes its rows, so that a training
# draws the same numbers on any number of ranks.


def rand(count: int, width: int, device: torch.device) -> Tensor:
    """Return (count, width) uniform float32 numbers for so many images of this rank."""
    if PLACE.step is None:
        return torch.rand(count, width, device=device)
    return _own(torch.rand(PLACE.step.all, width, device=device))


def randn_like(values: Tensor) -> Tensor:
    """Return numbers of the standard normal distribution for (B, ...) values of this rank's images."""
    if PLACE.step is None:
        return torch.randn_like(values)
    whole = (PLACE.step.all, *values.shape[1:])
    return _own(torch.randn(whole, dtype=values.dtype, device=values.device))


def _own(drawn: Tensor) -> Tensor:
    assert PLACE.step is not None
    start, mine, _ = PLACE.step
    return drawn[start : start + mine] if mine else drawn[-1:]
