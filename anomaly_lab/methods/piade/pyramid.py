"""PIADE's pyramid: features pooled at four scales, cut into capsules and routed to vectors."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import BatchNormOfAny
from anomaly_lab.layers.capsules import Capsules

SIDE = 4  # of the map, as a ResNet has it of an image of 120 px
# Sides of the windows that each level averages: the released code pools all of the map at every level.
WINDOWS = {"released": (SIDE, SIDE, SIDE, SIDE), "paper": (1, 2, SIDE, SIDE)}


@final
class Pyramid(nn.Module):
    """Pools a map at four levels, gives each fewer channels, and cuts their values into capsules.

    It takes (B, C, 4, 4) and gives (B, capsules, capsule_dim); a capsule holds neighbouring channels of one
    place. They are not squashed, as in the released code.

    Args:
        channels: of the map.
        variant: ``released`` averages all of the map at each level, ``paper`` windows of 1, 2, 4 and all.
        reductions: by what each level's 1 x 1 convolution divides the channels.
        capsule_dim: values of a capsule.
        momentum: of the batch norms, in PyTorch's sense: the share of the newest batch.

    Attributes:
        capsules: how many there are.
    """

    def __init__(
        self,
        channels: int,
        variant: Literal["released", "paper"],
        reductions: Sequence[int],
        capsule_dim: int,
        momentum: float,
    ) -> None:
        super().__init__()
        self.windows = WINDOWS[variant]
        if len(reductions) != len(self.windows):
            raise ConfigError(f"model.reductions: {list(reductions)}; give {len(self.windows)}, one a level")
        if min(reductions) < 1 or capsule_dim < 1 or any(channels % (r * capsule_dim) for r in reductions):
            given = f"{channels} channels by {list(reductions)} are no whole capsules of {capsule_dim}"
            raise ConfigError(f"model.reductions: {given}; change them or model.capsule_dim")
        self.heads = nn.ModuleList(_head(channels, channels // one, momentum) for one in reductions)
        self.capsule_dim = capsule_dim
        places = [(SIDE // window) ** 2 for window in self.windows]
        pairs = zip(places, reductions, strict=True)
        self.capsules = sum(count * channels // one for count, one in pairs) // capsule_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return the capsules of all levels, one level after the other."""
        levels = [head(avg_pool2d(x, window)) for head, window in zip(self.heads, self.windows, strict=True)]
        cut = [level.permute(0, 2, 3, 1).reshape(len(x), -1, self.capsule_dim) for level in levels]
        return torch.cat(cut, dim=1)


@final
class LongestVector(nn.Module):
    """Routes capsules to a few instantiation vectors and keeps the longest; (B, I, D) to (B, P) float32.

    Which is longest carries no gradient.
    """

    def __init__(self, capsules: Capsules) -> None:
        super().__init__()
        self.capsules = capsules

    def forward(self, capsules: Tensor) -> Tensor:
        """Return the longest vector of each image, the first of equally long ones."""
        vectors: Tensor = self.capsules(capsules)
        longest = torch.linalg.vector_norm(vectors, dim=2).argmax(dim=1)
        return vectors[torch.arange(len(vectors), device=vectors.device), longest]


def _head(before: int, after: int, momentum: float) -> nn.Sequential:
    weights = nn.Conv2d(before, after, 1, bias=False)
    return nn.Sequential(weights, BatchNormOfAny(after, momentum=momentum), nn.ReLU(inplace=True))
