"""Greedy k-centre choice of a bank's most spread rows (PatchCore: Roth et al., CVPR 2022, algorithm 1)."""

import math
from typing import Literal

import torch
from torch import Tensor

from anomaly_lab.estimators.base import WORKING_NUMBERS

# Vectors that a block of choices looks at; few keep a choice cheap, many keep the blocks long.
CANDIDATES = 2048
BLOCK = 1024  # choices that wait at most until all distances learn of them
STARTS = 10  # patches from whose mean distance the authors' code begins
Start = Literal["drawn", "mean_of_ten"]
DIRECT = "donot_use_mm_for_euclid_dist"  # by differences: the products of close vectors cancel


@torch.no_grad()
def greedy_coreset(
    embedding: Tensor, count: int, projection: int | None, seed: int, start: Start = "drawn"
) -> Tensor:
    """Return (count,) int64 rows of the (N, D) vectors, as chosen: each the farthest from those before it.

    The first is ``drawn``. With ``mean_of_ten`` ten vectors are drawn, and each vector's mean distance to
    them counts as one to a chosen vector, from the first choice to the last: what the authors' code calls
    the approximate greedy coreset. Of equally far ones the lowest row comes first; no row comes twice.
    Distances are measured after a Gaussian random projection to ``projection`` dimensions where that is
    fewer. ``count`` is 1 or more; from N on it means all rows.
    """
    if count >= len(embedding):
        return torch.arange(len(embedding), device=embedding.device)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws alike
    if start == "drawn":
        drawn = torch.randint(len(embedding), (1,), generator=generator)
    else:
        drawn = torch.randperm(len(embedding), generator=generator)[:STARTS]
    with torch.autocast(embedding.device.type, enabled=False):
        points = embedding.float()
        if projection is not None and projection < points.shape[1]:
            directions = torch.randn(points.shape[1], projection, generator=generator) / math.sqrt(projection)
            points = points @ directions.to(points.device)
        most = None if start == "drawn" else _mean_distance(points, drawn)
        first = int(drawn if most is None else most.argmax())
        chosen = _traverse(points, first, count, torch.float32, most) or _traverse(
            points, first, count, torch.float64, most
        )
    return torch.tensor(chosen, device=embedding.device)


def _mean_distance(points: Tensor, rows: Tensor) -> Tensor:
    """Return the float64 mean distance of each of (N, D) points to some rows of them: (N,)."""
    centres = points[rows.to(points.device)].double()
    step = max(1, WORKING_NUMBERS // 4 // points.shape[1])
    parts = (part.double() for part in torch.split(points, step))
    return torch.cat([torch.cdist(part, centres, compute_mode=DIRECT).mean(dim=1) for part in parts])


def _traverse(points: Tensor, first: int, count: int, dtype: torch.dtype, most: Tensor | None) -> list[int]:
    """Return the rows of the farthest-first traversal, or none where products in ``dtype`` are too coarse.

    No distance counts for more than ``most``, (N,) float64, if it is given.

    Distances only fall as centres come, so those to the centres applied so far bound the true ones. A block
    of choices therefore needs only the vectors of the largest bounds, while the farthest of them is beyond
    all other bounds.
    """
    mean = points.mean(dim=0)
    # Squared distances to the nearest centre.
    squared = torch.full((len(points),), torch.inf, dtype=dtype, device=points.device)
    _apply(points, mean, [first], squared)
    unseen = 32 * torch.finfo(dtype).eps * squared.max().item()  # no vector's products are rounded by more
    if most is not None:
        torch.minimum(squared, most.square().to(dtype), out=squared)
    chosen = [first]
    size = CANDIDATES
    while len(chosen) < count:
        limit = squared.topk(min(size, len(points)), sorted=False).values.min()
        inside = (squared >= limit) & squared.isfinite()
        rows = inside.nonzero().flatten()  # ascending, so that the first of equals is the lowest row
        # In float32 the rounding would swap some of thousands of close distances.
        candidates = points[rows].double()
        distance = _distance(candidates, points[chosen].double())
        distance = distance if most is None else torch.minimum(distance, most[rows])
        # The error is also measured, since TF32 rounds more.
        error = 4 * (distance.square() - squared[rows]).abs().max().item()
        if dtype == torch.float32 and error > 1e-3 * distance.max().item() ** 2:
            return []
        outside = squared.masked_fill(inside, -torch.inf).max().item()
        ceiling = math.sqrt(max(outside + error + unseen, 0)) if math.isfinite(outside) else -1
        block = rows[_choose(candidates, distance, ceiling, min(BLOCK, count - len(chosen)))].tolist()
        chosen += block
        if len(chosen) < count:
            _apply(points, mean, block, squared)
        size = CANDIDATES if block else 2 * size  # too many are equally far: look at more
    return chosen


def _distance(points: Tensor, centres: Tensor) -> Tensor:
    """Return the float64 distance of each of (B, D) float64 points to the nearest of (C, D) centres."""
    middle = centres.mean(dim=0)
    targets = centres - middle
    norms = targets.square().sum(dim=1)
    distance = torch.empty_like(points[:, 0])
    step = max(1, WORKING_NUMBERS // 4 // len(centres))
    for low in range(0, len(points), step):
        part = points[low : low + step]
        owner = torch.addmm(norms, part - middle, targets.T, alpha=-2).argmin(dim=1)
        # By differences again, as in `_choose`: else equal vectors would be unequally far.
        distance[low : low + step] = torch.linalg.vector_norm(part - centres[owner], dim=1)
    return distance


def _choose(points: Tensor, distance: Tensor, ceiling: float, most: int) -> list[int]:
    """Return up to ``most`` rows of the (B, D) points, farthest first, each beyond ``ceiling``.

    It eats the distances.
    """
    chosen: list[int] = []
    while len(chosen) < most:
        farthest = int(distance.argmax())  # the first of equals
        value = distance[farthest].item()
        if value <= ceiling:
            break
        if value == 0:  # only doubles are left
            return chosen + (distance == 0).nonzero().flatten()[: most - len(chosen)].tolist()
        chosen.append(farthest)
        centre = points[farthest : farthest + 1]
        torch.minimum(distance, torch.cdist(points, centre, compute_mode=DIRECT).flatten(), out=distance)
        distance[farthest] = -1
    return chosen


def _apply(points: Tensor, mean: Tensor, centres: list[int], squared: Tensor) -> None:
    """Lower the squared distances to those to new centres, in place, by matrix products.

    A centre has -inf.
    """
    if not centres:
        return
    rows = torch.tensor(centres, device=points.device)
    targets = (points[rows] - mean).to(squared.dtype)
    norms = targets.square().sum(dim=1)
    step = max(1, WORKING_NUMBERS // 4 // (len(centres) + points.shape[1]))
    for low in range(0, len(points), step):
        part = (points[low : low + step] - mean).to(squared.dtype)
        value = torch.addmm(norms, part, targets.T, alpha=-2).amin(dim=1) + part.square().sum(dim=1)
        squared[low : low + step] = torch.minimum(squared[low : low + step], value)
    squared[rows] = -torch.inf
