"""What the segmenters' networks share: their contract, a pair of convolutions, a dropout for all ranks."""

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here


class SegmentationNetwork(nn.Module, ABC):
    """From an image to logits of being anomalous, pixel by pixel.

    Attributes:
        stride: the sides of an image must be multiples of it.
    """

    stride: int

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return (B, heads, H, W) float32 logits of normalised (B, 3, H, W) images.

        Each head is trained alike, and their mean is the map.
        """

    @abstractmethod
    def load_pretrained(self) -> None:
        """Load the weights that were asked for. ConfigError: they cannot be had, or do not fit."""


@final
class Dropout(nn.Module):
    """Sets a share of the values to 0 in training, and enlarges the others by 1 / (1 - share).

    What is random is drawn for the batch of all ranks, which `torch.nn.Dropout` does not do.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, ...) values of the same shape."""
        if not self.training or self.share == 0:
            return x
        kept = here.rand(len(x), x[0].numel(), x.device).view_as(x) >= self.share
        return x * kept / (1 - self.share)


def convolutions(before: int, after: int, *, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Return two 3x3 convolutions with bias, each with its norm (if any), ReLU and dropout (if any)."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers.append(nn.Conv2d(channels, after, 3, padding=1))
        layers += [nn.BatchNorm2d(after)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        layers += [Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan-in), with bias 0 (He et al., ICCV 2015)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_sizes(least: int, dropout: float, **widths: int) -> None:
    """Raise ConfigError unless the widths are at least ``least``, and the dropout is a share below 1."""
    for name, width in widths.items():
        if width < least:
            raise ConfigError(f"model.network.{name}: {width}; give at least {least}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.network.dropout: {dropout} is not a share; give a number in [0, 1)")
