"""What makes vectors comparable and short before an estimator: standardisation and principal components."""

from typing import Self, final

import torch
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError


@final
class Standardizer(nn.Module):
    """Gives every feature mean 0 and standard deviation 1 over the vectors it was fitted to."""

    mean_: Tensor  # (D,) float32
    std_: Tensor  # (D,) float32, above 0

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("std_", torch.empty(0))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Self:
        """Measure the (N, D) vectors, the standard deviation over N."""
        std, self.mean_ = torch.std_mean(embedding.detach().float(), dim=0, correction=0)
        # A constant feature's spread is 0 or rounding noise: dividing by it gives NaN, or makes the noise
        # loud.
        self.std_ = torch.where(std > 1e-6 * std.max(), std, 1.0)
        return self

    def forward(self, embedding: Tensor) -> Tensor:
        """Return (M, D) float32."""
        return (embedding.float() - self.mean_) / self.std_


def enough(spread: Tensor, variance: float) -> int:
    """Return how many of the (K,) singular values, largest first, explain this share of the variance."""
    energy = spread.square().cpu().cumsum(dim=0)  # on a GPU a sum in running order is not deterministic
    return int((energy < variance * energy[-1]).sum()) + 1


@final
class Pca(nn.Module):
    """Projects on the fewest principal components that explain enough of the variance.

    That is at least ``variance``, a share in (0, 1].
    """

    mean_: Tensor  # (D,) float32
    components_: Tensor  # (K, D) float32, orthonormal rows, largest variance first

    def __init__(self, variance: float, max_components: int) -> None:
        super().__init__()
        if not 0 < variance <= 1:
            raise ConfigError(f"model.reduction.variance: must be above 0 and at most 1, not {variance}")
        if max_components < 1:
            raise ConfigError(f"model.reduction.max_components: must be at least 1, not {max_components}")
        self.variance = variance
        self.max_components = max_components
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("components_", torch.empty(0))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Self:
        """Find the components of (N, D) vectors: at most ``max_components``, N - 1 and D, at least one."""
        vectors = embedding.detach().float()
        self.mean_ = vectors.mean(dim=0)
        with torch.autocast(vectors.device.type, enabled=False):
            _, spread, axes = torch.linalg.svd(vectors - self.mean_, full_matrices=False)
        most = min(self.max_components, len(vectors) - 1, vectors.shape[1])
        axes = axes[: max(1, min(enough(spread, self.variance), most))]
        # The decomposition leaves the signs open; the largest loading decides, so that every machine agrees.
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        self.components_ = axes * largest.sign()
        return self

    def forward(self, embedding: Tensor) -> Tensor:
        """Return (M, K) float32."""
        with torch.autocast(embedding.device.type, enabled=False):
            return (embedding.float() - self.mean_) @ self.components_.T
