"""The contract of a model of embeddings that is fitted, not trained by gradients, and what they share."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

WORKING_NUMBERS = 2**26  # float32 numbers that a chunk of work may hold at once: 256 MiB


class Estimator(nn.Module, ABC):
    """Scores vectors by how unlike they are to those it was fitted to.

    It computes in float32 throughout, also under autocast. What it learns lies in buffers whose names end in
    ``_``, empty until `fit` or a checkpoint fills them.
    """

    @abstractmethod
    def fit(self, embedding: Tensor) -> Self:
        """Learn from the float vectors of normal images, on their device; return self."""

    @abstractmethod
    def score(self, embedding: Tensor) -> Tensor:
        """Return float32 scores, unbounded, higher is more anomalous; they do not depend on the batch."""


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """Return W (..., D, D), lower triangular, of (..., D, D) covariances C.

    W^T W is the inverse of C + ridge I, |W (x - mean)| is the Mahalanobis distance, and log det W the sum of
    the logarithms of W's diagonal.
    """
    identity = torch.eye(covariance.shape[-1], device=covariance.device)
    # float32 knows no eigenvalue to better than some 1e-7 of the trace; a smaller ridge would leave negative
    # ones.
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    floor = (1e-6 * trace).clamp(min=ridge)[..., None, None]
    root = torch.linalg.cholesky(covariance + floor * identity)
    inverse: Tensor = torch.linalg.solve_triangular(root, identity, upper=False)
    return inverse
