"""A network with squeeze-and-excitation between its stages (Hu, Shen, Sun, CVPR 2018), as in PIADE's code."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.errors import ConfigError


@final
class SqueezeExcitation(nn.Module):
    """Weighs the channels of (B, C, h, w) maps by what all of them have on the average; same shape.

    Two linear maps without bias, through C / reduction values; 2 C^2 / reduction weights.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if reduction < 1 or channels % reduction:
            given = f"{reduction} does not divide {channels} channels"
            raise ConfigError(f"model.squeeze_reduction: {given}; give a divisor")
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x, each channel times a weight in (0, 1)."""
        weights: Tensor = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


@final
class SqueezedBackbone(nn.Module):
    """Runs a backbone step by step, with a squeeze-and-excitation after some of them.

    Args:
        backbone: a ResNet or another chain of steps; its deepest layer is what comes out.
        after: names of steps, such as ``maxpool`` and ``layer1``.
        reduction: of each squeeze-and-excitation.
        normalise: whether images are normalised as the backbone's weights want it.

    Attributes:
        channels: of the maps that come out.
    """

    def __init__(
        self,
        backbone: TrainedBackbone,
        after: Sequence[str],
        reduction: int,
        normalise: bool,  # noqa: FBT001 - a key of its own
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalise = normalise
        self.channels = backbone.channels[-1]
        widths = _widths(backbone)
        if unknown := [name for name in after if name not in widths]:
            shown = f"{unknown[0]} is no step of {backbone.name}; it has {', '.join(widths)}"
            raise ConfigError(f"model.squeezed: {shown}")
        made = {_key(name): SqueezeExcitation(widths[name], reduction) for name in after}
        self.excitations = nn.ModuleDict(made)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the backbone takes images of this size."""
        self.backbone.check_size(height, width)

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, C, h, w) maps of (B, 3, H, W) images in [0, 1]."""
        x = image.float()
        if self.normalise:
            x = (x - self.backbone.mean) / self.backbone.std
        x = x.contiguous(memory_format=torch.channels_last)
        for name, part in self.backbone.parts():
            x = part(x)
            if _key(name) in self.excitations:
                x = self.excitations[_key(name)](x)
        return x


def _key(name: str) -> str:
    return name.replace(".", "_")


@torch.no_grad()
def _widths(backbone: TrainedBackbone) -> dict[str, int]:
    """Return how many channels each step gives, by its name; norms learn nothing of it."""
    found = {}
    training = backbone.training
    backbone.eval()
    x = torch.zeros(1, 3, 64, 64)
    for name, part in backbone.parts():
        x = part(x)
        found[name] = x.shape[1]
    backbone.train(training)
    return found
