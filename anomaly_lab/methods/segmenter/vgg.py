"""VGG-16's thirteen convolutions at any width, and its ImageNet weights at the published one.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import timm
from timm.models import load_state_dict
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError

PUBLISHED = 64  # width of the first of five levels
DEPTHS = (2, 2, 3, 3, 3)


@final
class VggEncoder(nn.Module):
    """Five levels of 3x3 convolutions with ReLU, without the pooling between them.

    At width 64 it has 14,714,688 parameters, with batch norms 14,723,136.

    Attributes:
        widths: channels of each level.
    """

    def __init__(self, width: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.widths = [width * factor for factor in (1, 2, 4, 8, 8)]
        before = [3, *self.widths]
        self.levels = nn.ModuleList(
            [
                level(channels, after, after, depth, batch_norm=batch_norm)
                for channels, after, depth in zip(before, self.widths, DEPTHS, strict=False)
            ]
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the pooled maps of the last level, (B, 8 * width, H / 32, W / 32), sides rounded up."""
        x = image
        for convolved in self.levels:
            x = nn.functional.max_pool2d(convolved(x), 2, ceil_mode=True)
        return x


def level(before: int, middle: int, after: int, depth: int, *, batch_norm: bool) -> nn.Sequential:
    """Return so many 3x3 convolutions with bias, each with its norm (if any) and ReLU."""
    channels = [before, *[middle] * (depth - 1), after]
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        norm = [nn.BatchNorm2d(b)] if batch_norm else []
        layers += [nn.Conv2d(a, b, 3, padding=1), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def check_weights(weights: str, **widths: tuple[int, int]) -> None:
    """Raise ConfigError unless the weights can be had, for networks of these widths: (given, published)."""
    if weights not in {"random", "imagenet"} and not Path(weights).is_file():
        raise ConfigError(f"model.network.weights: no file {weights}; give random, imagenet or a FILE")
    for name, (given, published) in widths.items():
        if weights != "random" and given != published:
            ways = f"give model.network.weights=random, or model.network.{name}={published}"
            raise ConfigError(f"model.network.weights: {weights} fits no {name} of {given}; {ways}")


def load(parts: Sequence[nn.Module], name: str, weights: str, prefixes: tuple[str, ...]) -> None:
    """Copy pretrained weights into parts that list the same tensors in the same order.

    Args:
        parts: of a network, in the order of timm's.
        name: of the network in timm.
        weights: ``random`` (nothing is done), ``imagenet`` (from the hub) or a file of timm's weights.
        prefixes: of the names, in timm, of the weights that are wanted.

    Raises:
        ConfigError: they cannot be had, or do not fit; it says what to fetch.
    """
    if weights == "random":
        return
    try:
        overlay: dict[str, Any] = {}
        if weights != "imagenet":
            # Said here, as older releases of timm would run what a stranger's file holds.
            overlay["state_dict"] = load_state_dict(weights, weights_only=True)
        source = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        wanted = [value for key, value in source.items() if key.startswith(prefixes)]
        own = [value for part in parts for value in part.state_dict().values()]
        for mine, given in zip(own, wanted, strict=True):
            mine.copy_(given)
    except Exception as error:  # the hub, the file and the shapes each raise their own
        first = f"{type(error).__name__}: {str(error).strip().partition('.')[0].partition(chr(10))[0]}"
        ways = f"give model.network.weights=FILE with timm's {name} (model.safetensors), or random"
        raise ConfigError(f"model.network.weights: {weights} cannot be used ({first}); {ways}") from error
