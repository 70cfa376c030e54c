"""One Gaussian per position (PaDiM: Defard, Setkov, Loesch, Audigier, ICPR workshops 2021)."""

from typing import Self, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import WORKING_NUMBERS, Estimator, whitening
from anomaly_lab.estimators.moments import Moments


@final
class PositionGaussian(Estimator):
    """Mahalanobis distances, each patch to the Gaussian of its position.

    ``ridge`` is the paper's epsilon, 0.01. It is at least 1e-6 of a covariance's trace, which float32 needs.
    """

    mean_: Tensor  # (P, D) float32
    precision_: Tensor  # (P, D, D) float32, W with W^T W the inverse covariance

    def __init__(self, ridge: float) -> None:
        super().__init__()
        if ridge <= 0:
            raise ConfigError(
                f"model.estimator.ridge: must be above 0, not {ridge}; a constant position needs it"
            )
        self.ridge = ridge
        self.moments = Moments(joint=True)
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("precision_", torch.empty(0))

    def fit(self, embedding: Tensor) -> Self:
        """Fit (N, P, D) patch vectors, eq. 1; a single image leaves the ridge as the whole covariance."""
        self.update(embedding)
        return self.finish()

    def update(self, embedding: Tensor) -> None:
        """Take further (B, P, D) patch vectors in; memory does not grow with their number."""
        self.moments.update(embedding)

    @torch.no_grad()
    def finish(self) -> Self:
        """Fit what `update` was given since the last fit."""
        moments, self.moments = self.moments.of_all_ranks(), Moments(joint=True)
        self.mean_ = moments.origin + moments.mean
        self.precision_ = moments.scatter  # replaced in place: it is by far the largest
        positions, width = self.mean_.shape
        step = max(1, WORKING_NUMBERS // 16 // width**2)
        with torch.autocast(self.mean_.device.type, enabled=False):
            for low in range(0, positions, step):
                covariance = self.precision_[low : low + step] / max(moments.count - 1, 1)
                self.precision_[low : low + step] = whitening(covariance, self.ridge)
        return self

    @torch.no_grad()
    def score(self, embedding: Tensor) -> Tensor:
        """Return the distances (M, P), eq. 2, of (M, P, D) patch vectors."""
        with torch.autocast(embedding.device.type, enabled=False):
            centred = (embedding.float() - self.mean_).transpose(0, 1)
            distance: Tensor = torch.linalg.vector_norm(centred @ self.precision_.mT, dim=2).T
        return distance
