"""What the ranks of a run exchange. A process alone exchanges nothing: it gets back what it gave."""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from anomaly_lab.ranks.here import PLACE, Step, counts, first, stepping

Value = TypeVar("Value")


def gathered(value: Value) -> list[Value]:
    """Return what every rank gives, in their order; plain types and arrays, on every rank."""
    if PLACE.size == 1:
        return [value]
    found: list[Any] = [None] * PLACE.size
    dist.all_gather_object(found, value)
    return found


def told(value: Value) -> Value:
    """Return what the first rank gives."""
    if PLACE.size == 1:
        return value
    found = [value]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def handed_in(value: Value) -> Iterator[Value]:
    """Yield, on the first rank, what each of the others gives, one at a time; the others get nothing."""
    if not first():
        dist.send_object_list([value], dst=0)
        return
    for other in range(1, PLACE.size):
        found: list[Any] = [None]
        dist.recv_object_list(found, src=other)
        yield found[0]


def summed(values: Tensor) -> Tensor:
    """Return the sum over all ranks, alike to the bit on each; without a gradient."""
    return _reduced(values, dist.ReduceOp.SUM)


def greatest(values: Tensor) -> Tensor:
    """Return the greatest over all ranks of each value; without a gradient."""
    return _reduced(values, dist.ReduceOp.MAX)


def agreed(*numbers: int) -> list[int]:
    """Return the greatest over all ranks of each of some numbers."""
    return list(numbers) if PLACE.size == 1 else greatest(torch.tensor(numbers)).tolist()


def _reduced(values: Tensor, how: Any) -> Tensor:
    if PLACE.size == 1:
        return values
    found = values.detach().clone()
    dist.all_reduce(found, how)
    return found


def sum_up(values: Tensor) -> None:
    """Make values the sum over all ranks, in place, as they may be large."""
    if PLACE.size > 1:
        dist.all_reduce(values)


def in_turn(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of all ranks, the first of each, then the second of each, on every rank.

    Ranks that divide a batch give one part a batch, so this is the order of the batches' images. A rank that
    had no image of the last batch may have a part less.
    """
    if PLACE.size == 1:
        return list(parts)
    shapes = gathered([(tuple(part.shape), part.dtype, part.device.type) for part in parts])
    device = next((part.device for part in parts), None)
    found = []
    for number, row in enumerate(zip_longest(*shapes)):
        for owner, shape in enumerate(row):
            if shape is None:
                continue
            if owner == PLACE.rank:
                part = parts[number].contiguous()
            else:
                part = torch.empty(shape[0], dtype=shape[1], device=device or shape[2])
            # As bytes: not every kind of number can be sent.
            dist.broadcast(part.view(-1).view(torch.uint8), src=owner)
            found.append(part)
    return found


def as_the_first(tensors: Sequence[Tensor]) -> None:
    """Give every rank the first one's values, in place."""
    if PLACE.size == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            if not tensor.numel():
                continue
            whole = tensor.contiguous()
            dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
            tensor.copy_(whole)


def over_some(images: Tensor, chosen: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return the mean loss over the chosen of (B, ...) images, as a share of that of all ranks' batch.

    It is None if none is chosen on any rank. ``chosen`` is (B,) bool.
    """
    if PLACE.step is None:
        return loss(images[chosen]) if chosen.any() else None
    mine = int(chosen.sum()) * counts()
    each = gathered(mine)
    step = Step(sum(each[: PLACE.rank]), mine, sum(each))
    if not step.all:
        return None
    with stepping(step):
        found = loss(images[chosen] if mine else images[-1:])
    # The whole loss is weighed by this rank's share of the batch, this part by its share of the chosen.
    weight = mine / step.all * PLACE.step.all / max(PLACE.step.mine, 1)
    return found * weight
