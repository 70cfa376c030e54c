"""What makes vectors comparable and short before an estimator: standardisation and principal components."""

from typing import Literal, Self, final

import torch
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError

ROUNDING = 1e-6  # of the largest spread: a smaller one is no property of the vectors


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
        self.std_ = torch.where(std > ROUNDING * std.max(), std, 1.0)
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
    """Projects on some principal components, those of the largest or of the smallest variance.

    Args:
        keep: ``largest``: the fewest components that explain at least ``variance``. ``smallest``: the others,
            and the last two of ``largest``, between which the share is reached: the negated PCA of Rippel,
            Mertens, Merhof (ICPR 2020), as their code has it. ``none``: the vectors stay as they are.
        variance: a share of the variance, in (0, 1].
        max_components: of the largest so many of largest variance, of the smallest so many of smallest.
    """

    mean_: Tensor  # (D,) float32
    components_: Tensor  # (K, D) float32, orthonormal rows, largest variance first; (0,) if none are kept

    def __init__(
        self, keep: Literal["none", "largest", "smallest"], variance: float, max_components: int
    ) -> None:
        super().__init__()
        if not 0 < variance <= 1:
            raise ConfigError(f"model.reduction.variance: must be above 0 and at most 1, not {variance}")
        if max_components < 1:
            raise ConfigError(f"model.reduction.max_components: must be at least 1, not {max_components}")
        self.keep = keep
        self.variance = variance
        self.max_components = max_components
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("components_", torch.empty(0))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Self:
        """Find the components of (N, D) vectors: at most ``max_components``, N - 1 and D, at least one."""
        if self.keep == "none":
            return self
        vectors = embedding.detach().float()
        self.mean_ = vectors.mean(dim=0)
        # In float32 a direction of small variance is known to few digits.
        centred = (vectors - self.mean_).to(torch.float32 if self.keep == "largest" else torch.float64)
        with torch.autocast(vectors.device.type, enabled=False):
            _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
        rank = max(1, min(len(spread), len(vectors) - 1))
        if self.keep == "smallest":
            # What varies less is the rounding of the features.
            rank = max(1, min(rank, int((spread > ROUNDING * spread[0]).sum())))
        reached = min(enough(spread, self.variance), rank)
        if self.keep == "largest":
            axes = axes[: min(reached, self.max_components)]
        else:
            axes = axes[max(0, reached - 2, rank - self.max_components) : rank].float()
        # The decomposition leaves the signs open; the largest loading decides, so that every machine agrees.
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        self.components_ = axes * largest.sign()
        return self

    def forward(self, embedding: Tensor) -> Tensor:
        """Return (M, K) float32; (M, D) if no components are kept."""
        if self.keep == "none":
            return embedding.float()
        with torch.autocast(embedding.device.type, enabled=False):
            return (embedding.float() - self.mean_) @ self.components_.T
