"""Exact nearest neighbours, and the mean distance to them as a score."""

import logging
import math
from typing import Annotated, Literal, Self, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import WORKING_NUMBERS, Estimator
from anomaly_lab.types import EVALUATION_ONLY

log = logging.getLogger(__name__)

SPARE = 8  # candidates beyond those asked for: what the rounding of the products could have swapped


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distances, ascending, and the int64 bank rows of the nearest vectors.

    Both are (M, count), the queries (M, D), the bank (N, D), and ``count`` is at most N. It is exact: matrix
    products find candidates, whose distances are then taken from differences; what the rounding could still
    have swapped is searched again in float64. A query that is in the bank has distance 0. Beyond its results
    it holds some `WORKING_NUMBERS` numbers, never the M x N distances.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, bank = queries.float(), bank.float()
        distance, row, certain = _search(queries, bank, count, torch.float32)
        unsure = (~certain).nonzero().flatten()
        if len(unsure):
            distance[unsure], row[unsure], _ = _search(queries[unsure], bank, count, torch.float64)
    return distance, row


def _search(queries: Tensor, bank: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances, rows and the (M,) bool whether no other vector can be nearer.

    Products are taken in ``dtype``.
    """
    squared, row, norms = _candidates(queries, bank, min(count + SPARE, len(bank)), dtype)
    exact = _differences(queries, bank, row)
    # What rounding does to the products grows with the norms, and with TF32: there the error that is seen
    # tells.
    margin = 4 * (exact.square() - squared).abs().amax(dim=1) + 32 * torch.finfo(dtype).eps * (
        norms + squared[:, -1]
    )
    distance, order = exact.sort(dim=1)
    distance = distance[:, :count]
    certain = (distance[:, -1].square() + margin < squared[:, -1]) | (row.shape[1] == len(bank))
    return distance, row.gather(1, order[:, :count]), certain


def _candidates(
    queries: Tensor, bank: Tensor, count: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared distances (M, count), their bank rows, and the queries' centred squared norms.

    The distances are rounded and ascending.
    """
    width = bank.shape[1]
    room = WORKING_NUMBERS * 4 // dtype.itemsize
    # Two chunks of vectors and their products fit the room.
    side = max(1, math.isqrt(width**2 + room) - width)
    mean = bank.mean(dim=0)  # |x|^2 - 2xy + |y|^2 cancels least where the norms are small
    best = torch.full((len(queries), count), torch.inf, dtype=dtype, device=queries.device)
    rows = torch.zeros((len(queries), count), dtype=torch.int64, device=queries.device)
    norms = torch.zeros(len(queries), dtype=dtype, device=queries.device)
    for start in range(0, len(bank), side):
        part = (bank[start : start + side] - mean).to(dtype)
        offsets = part.square().sum(1)
        for low in range(0, len(queries), side):
            chunk = (queries[low : low + side] - mean).to(dtype)
            here = slice(low, low + side)
            norms[here] = chunk.square().sum(1)
            found = torch.addmm(offsets, chunk, part.T, alpha=-2).topk(min(count, len(part)), largest=False)
            best[here], order = torch.cat([best[here], found.values], dim=1).topk(count, largest=False)
            rows[here] = torch.cat([rows[here], found.indices + start], dim=1).gather(1, order)
    return best + norms[:, None], rows, norms


def _differences(queries: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Return the (M, C) distances of the queries to their (M, C) bank rows, without cancellation."""
    step = max(1, WORKING_NUMBERS // 2 // (rows.shape[1] * bank.shape[1]))
    distance = torch.empty(rows.shape, device=rows.device)
    for low in range(0, len(queries), step):
        here = slice(low, low + step)
        torch.linalg.vector_norm(bank[rows[here]].sub_(queries[here, None]), dim=2, out=distance[here])
    return distance


@final
class KNearest(Estimator):
    """The mean (squared) distance to the ``neighbors`` nearest vectors.

    For the squared one: Saeedi, Giusti, VISAPP 2022, eq. 4.
    """

    bank_: Tensor  # (N, D) float32

    def __init__(
        self,
        neighbors: Annotated[int, EVALUATION_ONLY],
        distance: Annotated[Literal["euclidean", "squared"], EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        if neighbors < 1:
            raise ConfigError(f"model.estimator.neighbors: must be at least 1, not {neighbors}")
        self.neighbors = neighbors
        self.distance = distance
        self.capped = False
        self.register_buffer("bank_", torch.empty(0))

    def fit(self, embedding: Tensor) -> Self:
        """Keep the (N, D) vectors."""
        self.bank_ = embedding.detach().float()
        return self

    def score(self, embedding: Tensor) -> Tensor:
        """Return the (M,) scores of (M, D) vectors; a smaller bank caps the neighbours."""
        count = min(self.neighbors, len(self.bank_))
        if count < self.neighbors and not self.capped:
            self.capped = True  # said once; here, since a run may take its bank from another one
            log.warning(
                "model.estimator.neighbors: %d, but the bank has %d: all are taken", self.neighbors, count
            )
        distance, _ = nearest(embedding, self.bank_, count)
        return (distance.square() if self.distance == "squared" else distance).mean(dim=1)
