"""Some layers of a network that a method trains on from pretrained weights."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, final

import timm
import torch
from torch import Tensor, nn

from anomaly_lab.backbones import timm_networks
from anomaly_lab.backbones import weights as sources
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import PRETRAINED


@final
class TrainedBackbone(nn.Module):
    """Some layers of a timm network that a method trains on from pretrained weights.

    Nothing deeper is computed. It takes (B, 3, H, W) float32 in [0, 1] and normalises it as its weights want
    it.

    Args:
        name, weights, layers: as `FeatureExtractor` has them.
        freeze: the weights, and the statistics of its norms, stay as they came.

    Attributes:
        channels, strides: of each layer; strides in pixels of the image.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: Annotated[str, PRETRAINED],
        layers: Sequence[str],
        freeze: bool,  # noqa: FBT001 - an ablation
    ) -> None:
        super().__init__()
        sources.check(name, weights)
        self.name = name
        self.weights = weights
        self.layers = tuple(layers)
        self.freeze = freeze
        self.making, self.order, facts = timm_networks.chosen(name, self.layers)
        joined = timm_networks.foldable(name, self.layers) if freeze else ()
        self.form = partial(timm_networks.frozen, joined=joined) if freeze else timm_networks.trained
        self.network = self.form(timm.create_model(name, **self.making))
        self.channels, self.strides = ([fact[key] for fact in facts] for key in ("num_chs", "reduction"))
        for key, values in timm_networks.statistics(self.network).items():
            self.register_buffer(key, values, persistent=False)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the network takes this size, with a deepest map of two pixels a side."""
        timm_networks.check_takes(self.name, self.layers, height, width)
        least = 2 * max(self.strides)  # a batch norm must have more than one value of a batch of one
        if min(height, width) < least:
            raise ConfigError(
                f"data.image_size: {height} x {width}; the layers of {self.name} want at least {least}"
            )

    def train(self, mode: bool = True) -> "TrainedBackbone":  # noqa: FBT001, FBT002 - torch's signature
        """Stay in eval mode where it is frozen."""
        return super().train(mode and not self.freeze)

    def load_pretrained(self) -> None:
        """Give the network the weights that were asked for.

        Raises:
            ConfigError: they cannot be had, or do not fit.
        """
        if self.weights != "random":
            found = sources.pretrained(self.name, self.weights, self.making)
            self.network.load_state_dict(self.form(found).state_dict())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return each layer's (B, C, h, w) maps, in the order asked for."""
        normalised = (image.float() - self.mean) / self.std
        levels = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return [levels[index] for index in self.order]

    def parts(self) -> list[tuple[str, nn.Module]]:
        """Return the steps of the network, by name, for a method that puts steps of its own between them.

        One after the other they compute what the deepest layer gives, of an image that is normalised.

        Raises:
            ConfigError: the network is no chain of steps.
        """
        inner = self.network["model"] if list(self.network) == ["model"] else self.network
        if isinstance(inner, nn.ModuleDict):
            return list(inner.items())
        if not all(hasattr(inner, name) for name in ("conv_stem", "bn1", "blocks")):
            raise ConfigError(f"model.backbone.name: {self.name} is no chain of steps; give a ResNet")
        blocks = [(f"blocks.{place}", block) for place, block in enumerate(inner.blocks)]
        return [("conv_stem", inner.conv_stem), ("bn1", inner.bn1), *blocks]
