"""One Gaussian per position (PaDiM: Defard, Setkov, Loesch, Audigier, ICPR workshops 2021)."""

from typing import Self, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import WORKING_NUMBERS, Estimator, whitening


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
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("precision_", torch.empty(0))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Self:
        """Fit (N, P, D) patch vectors, eq. 1; a single image leaves the ridge as the whole covariance."""
        count, positions, width = embedding.shape
        step = max(1, WORKING_NUMBERS // 4 // (width * (count + 4 * width)))
        self.mean_ = embedding.new_empty(positions, width, dtype=torch.float32)
        self.precision_ = embedding.new_empty(positions, width, width, dtype=torch.float32)
        with torch.autocast(embedding.device.type, enabled=False):
            for low in range(0, positions, step):
                block = embedding.detach()[:, low : low + step].float().transpose(0, 1)
                mean = block.mean(dim=1)
                centred = block - mean[:, None]
                covariance = centred.mT @ centred / max(count - 1, 1)
                self.mean_[low : low + step] = mean
                self.precision_[low : low + step] = whitening(covariance, self.ridge)
        return self

    @torch.no_grad()
    def score(self, embedding: Tensor) -> Tensor:
        """Return the distances (M, P), eq. 2, of (M, P, D) patch vectors."""
        with torch.autocast(embedding.device.type, enabled=False):
            centred = (embedding.float() - self.mean_).transpose(0, 1)
            distance: Tensor = torch.linalg.vector_norm(centred @ self.precision_.mT, dim=2).T
        return distance
