"""The statistical texture modules of STLNet (Zhu, Ji, Zhu, Gan, Wu, Yan, CVPR 2021), which MLFF takes over.

A position is described by its likeness to an average; these likenesses are quantised into levels and counted.
What the paper leaves open is as in its code, but for sizes (any is taken) and constant maps (where that code
gives NaN). The statistics are computed in float32 under mixed precision: in bf16 neighbouring levels of 128
are the same number.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import conv, resized

# Vectors below this length are counted as this long: their likeness goes to 0, its gradient stays finite.
SHORT = 1e-4
FLAT = 1e-5  # likenesses that span less differ by rounding: they all fall into the first levels


def likeness(x: Tensor, average: Tensor) -> Tensor:
    """Return the cosine between vectors along the second axis, -1 to 1; shapes are broadcast."""
    lengths = [torch.linalg.vector_norm(vectors, dim=1).clamp_min(SHORT) for vectors in (x, average)]
    cosines: Tensor = (x * average).sum(1) / (lengths[0] * lengths[1])
    return cosines


def quantised(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the levels of (..., N) values and the values softly encoded by them.

    The levels are (..., count), the encoding (..., count, N). Level n is ``min + (2n + 1) / (2 count) * (max
    - min)``; a value s is encoded as ``1 - |level - s|`` by the levels that are nearer than their spacing, by
    the others as 0. Distances are taken in spacings, so nothing is divided by 0.
    """
    low = values.amin(-1, keepdim=True)
    high = values.amax(-1, keepdim=True)
    spacing = (high - low).clamp_min(FLAT) / count
    number = torch.arange(count, dtype=values.dtype, device=values.device)
    place = (values - low) / spacing - 0.5
    apart = (number[:, None] - place[..., None, :]).abs()
    encoding = torch.where(apart < 1, 1 - apart * spacing[..., None], 0.0)
    return low + (number + 0.5) * spacing, encoding


def counted(encoding: Tensor) -> Tensor:
    """Return the share of each level in (..., L, N) encodings: (..., L), sums 1."""
    counts = encoding.sum(-1)
    return counts / counts.sum(-1, keepdim=True)


def counted_pairs(encoding: Tensor) -> Tensor:
    """Return how often level i lies upper left of level j in (..., L, h, w) encodings: (..., L, L), sums 1.

    h and w are at least 2; a pixel of the last row or column has no lower right neighbour.
    """
    counts = encoding[..., :-1, :-1].flatten(-2) @ encoding[..., 1:, 1:].flatten(-2).mT
    return counts / counts.sum((-2, -1), keepdim=True)


def exchanged(key: Tensor, query: Tensor, value: Tensor) -> Tensor:
    """Return the values that the graph softmax(key^T query) brings to each level.

    All are (B, C, L).
    """
    graph = (key.mT @ query).softmax(-1)
    return value @ graph.mT


@final
class TextureEnhancement(nn.Module):
    """TEM: spreads the levels' statistics over a graph, then paints them where the levels are.

    (B, channels, H, W) to the same shape; the encodings take B x levels x H x W floats.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        half = channels // 2
        self.levels = levels
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(channels, half, 1, bias=False),
        )
        self.describe = nn.Sequential(
            nn.Conv1d(2, half // 2, 1, bias=False),
            nn.LeakyReLU(),
            nn.Conv1d(half // 2, half, 1, bias=False),
            nn.ReLU(),
        )
        self.join = nn.Sequential(nn.Conv1d(2 * half, half, 1, bias=False), nn.BatchNorm1d(half), nn.ReLU())
        self.key, self.query, self.value = (nn.Conv1d(half, half, 1, bias=False) for _ in range(3))
        self.out = nn.Sequential(
            nn.Conv1d(half, channels, 1, bias=False), nn.BatchNorm1d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the enhanced map, float32."""
        reduced = self.reduce(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            reduced = reduced.float()
            average = reduced.mean(2, keepdim=True)
            levels, encoding = quantised(likeness(reduced, average), self.levels)
            described = self.describe(torch.stack([levels, counted(encoding)], dim=1))
            statistics = self.join(torch.cat([described, average.expand(-1, -1, self.levels)], dim=1))
            enhanced = self.out(
                exchanged(self.key(statistics), self.query(statistics), self.value(statistics))
            )
            painted: Tensor = enhanced @ encoding
        return painted.view(x.shape)


@final
class CellTexture(nn.Module):
    """Co-occurrence of levels in each cell of a scale x scale grid.

    It maps (B, channels, H, W) to (B, channels / 2, s, s). A map is first resized to the nearest size that
    the scale divides, with at least 2 x 2 pixels a cell.
    """

    def __init__(self, channels: int, levels: int, scale: int) -> None:
        super().__init__()
        half = channels // 2
        self.levels = levels
        self.scale = scale
        self.describe = nn.Sequential(
            nn.Conv2d(3, half // 2, 1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(half // 2, half, 1, bias=False),
            nn.ReLU(),
        )
        # One convolution of the average and the described counts, joined; as a sum, the average is not
        # repeated.
        self.from_average = nn.Conv2d(channels, half, 1, bias=False)
        self.from_counts = nn.Conv2d(half, half, 1, bias=False)
        self.norm = nn.BatchNorm2d(half)
        self.out = nn.Sequential(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        """Return the texture of each cell, float32."""
        s = self.scale
        h, w = (max(2, round(side / s)) for side in x.shape[2:])
        cells = resized(x, (s * h, s * w)).reshape(*x.shape[:2], s, h, s, w).transpose(3, 4)
        cells = cells.flatten(4).flatten(2, 3)  # (B, C, s s, h w)
        average = cells.mean(3, keepdim=True)
        levels, encoding = quantised(likeness(cells, average), self.levels)  # (B, s s, L), (B, s s, L, h w)
        counts = counted_pairs(encoding.reshape(*encoding.shape[:3], h, w))
        first = levels[..., :, None].expand_as(counts)
        second = levels[..., None, :].expand_as(counts)
        # The described counts are (B, C / 2, s s, L L).
        described = self.describe(torch.stack([first, second, counts], dim=1).flatten(3))
        joined = self.norm(self.from_average(average) + self.from_counts(described)).relu()
        textures: Tensor = self.out(joined).mean(3)
        return textures.reshape(*textures.shape[:2], s, s)


@final
class PyramidTexture(nn.Module):
    """PTFEM: the cells' textures at several scales, enlarged and joined.

    It maps (B, inputs, H, W) to (B, channels, H, W).
    """

    def __init__(self, inputs: int, channels: int, levels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, channels, 1, bias=False)
        self.cells = nn.ModuleList([CellTexture(channels, levels, scale) for scale in scales])
        self.out = conv(len(scales) * (channels // 2), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pyramid's texture."""
        reduced = self.reduce(x)
        with torch.autocast(x.device.type, enabled=False):
            textures = [cells(reduced.float()) for cells in self.cells]
        enlarged = [
            interpolate(texture, x.shape[2:], mode="bilinear", align_corners=True) for texture in textures
        ]
        pyramid: Tensor = self.out(torch.cat(enlarged, dim=1))
        return pyramid


@final
class StatisticalTexture(nn.Module):
    """STL: joins maps at one size, reduces them, enhances them (TEM), adds the pyramid's texture (PTFEM).

    Args:
        inputs: channels of all maps together.
        size: side that the maps are resized to, averaging or bilinear.
        channels: of the reduced map and of each module's output (STLNet: 256); a multiple of 4.
        tem, ptfem: whether the module is there.
        tem_levels: levels of the enhancement (128).
        ptfem_levels: levels of the pyramid (8).
        ptfem_scales: cells along a side, for each grid of the pyramid ([1, 2, 3, 6]).

    Attributes:
        width: channels that come out; 0 with both modules off: there is no texture then.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        inputs: int,
        size: int,
        channels: int,
        tem: bool,  # noqa: FBT001 - a row of the paper's ablation
        tem_levels: int,
        ptfem: bool,  # noqa: FBT001 - as above
        ptfem_levels: int,
        ptfem_scales: Sequence[int],
    ) -> None:
        super().__init__()
        if channels < 4 or channels % 4:
            raise ConfigError(f"model.texture.channels: {channels}; give a multiple of 4")
        for key, value, least in (
            ("size", size, 2),
            ("tem_levels", tem_levels, 2),
            ("ptfem_levels", ptfem_levels, 2),
        ):
            if value < least:
                raise ConfigError(f"model.texture.{key}: {value}; give at least {least}")
        if not ptfem_scales or min(ptfem_scales) < 1:
            ways = "give the cells along a side of each grid, at least 1"
            raise ConfigError(f"model.texture.ptfem_scales: {list(ptfem_scales)}; {ways}, e.g. [1,2,3,6]")
        self.size = (size, size)
        self.start = conv(inputs, channels, 1)
        self.tem = TextureEnhancement(channels, tem_levels) if tem else None
        self.ptfem = (
            PyramidTexture(channels * (1 + tem), channels, ptfem_levels, ptfem_scales) if ptfem else None
        )
        self.width = channels * (1 + tem + ptfem) if tem or ptfem else 0

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, size, size): the pyramid's texture, the enhanced map, the reduced map."""
        x: Tensor = self.start(torch.cat([resized(level, self.size) for level in maps], dim=1))
        if self.tem is not None:
            x = torch.cat([self.tem(x), x], dim=1)
        if self.ptfem is not None:
            x = torch.cat([self.ptfem(x), x], dim=1)
        return x
