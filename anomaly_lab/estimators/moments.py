"""Mean and covariance of vectors that come batch by batch, in memory that does not grow with their number."""

import math
from typing import Self, final

import torch
from torch import Tensor

from anomaly_lab.ranks import exchange, here


@final
class Moments:
    """Counts vectors and holds their mean and their scatter, the sum of (x - mean) (x - mean)^T, in float32.

    Two samples are joined as Chan, Golub, LeVeque (1979) do it, so that no large numbers are subtracted from
    each other. All is measured from the mean of the first batch: a spread that is small beside its mean keeps
    its digits.

    Args:
        joint: the scatter is the matrix (P, D, D) of each position's D features; otherwise it is a sum of
            squares for each value.
    """

    origin: Tensor  # of a vector's shape, as the mean
    mean: Tensor  # measured from the origin
    scatter: Tensor

    def __init__(self, *, joint: bool) -> None:
        self.joint = joint
        self.count = 0

    @torch.no_grad()
    def update(self, vectors: Tensor) -> None:
        """Add (B, ...) vectors, of the same shape and on the same device each time; (B, P, D) if joint."""
        vectors = vectors.detach().float()
        if not self.count:
            self.origin = vectors.mean(dim=0)
            self.mean = torch.zeros_like(self.origin)
            size = (*self.origin.shape, self.origin.shape[-1]) if self.joint else self.origin.shape
            self.scatter = self.origin.new_zeros(size)
        total = self.count + len(vectors)
        vectors = vectors - self.origin
        mean = vectors.mean(dim=0)
        step = mean - self.mean
        # What the distance of the two means adds to the scatter is that of one more vector.
        between = step * math.sqrt(self.count * len(vectors) / total)
        rows = torch.cat([vectors - mean, between[None]])
        if self.joint:
            rows = rows.transpose(0, 1)
            with torch.autocast(rows.device.type, enabled=False):
                self.scatter.baddbmm_(rows.mT, rows)
        else:
            self.scatter += rows.square_().sum(dim=0)
        self.mean += step * (len(vectors) / total)
        self.count = total

    @torch.no_grad()
    def of_all_ranks(self) -> Self:
        """Join, in place, the samples of all ranks, of which each has one; alike to the bit on each."""
        if here.size() == 1:
            return self
        origin = self.origin.clone()
        exchange.as_the_first([origin])
        self.mean += self.origin - origin
        self.origin = origin
        total = sum(exchange.gathered(self.count))
        mean = exchange.summed(self.mean.double() * self.count).div_(total).float()
        step = (self.mean - mean) * math.sqrt(self.count)
        if self.joint:
            with torch.autocast(step.device.type, enabled=False):
                self.scatter.baddbmm_(step[:, :, None], step[:, None, :])
        else:
            self.scatter += step.square()
        exchange.sum_up(self.scatter)
        self.mean = mean
        self.count = total
        return self
