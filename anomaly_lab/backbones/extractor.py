"""Features of a pretrained, frozen network: it computes, and nothing else."""

from collections.abc import Sequence
from typing import Annotated, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d

from anomaly_lab.backbones import timm_networks
from anomaly_lab.backbones import weights as sources
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import PRETRAINED

FEW = 4  # images at once on a CPU: what fits its caches is up to twice as fast, and takes less memory
LARGE = 2**19  # pixels, on any device: larger images go through the network one after the other
Pool = Literal["none", "avg", "max", "cascade"]


@final
class FeatureExtractor(nn.Module):
    """Some layers of a timm network, CNN or vision transformer.

    It is frozen and always in eval mode; nothing deeper is computed. It takes (B, 3, H, W) float32 in [0, 1]
    and normalises it as its weights want it.

    Args:
        name: timm's, with the tag of the weights after a dot (``wide_resnet50_2.tv_in1k``).
        weights: ``imagenet`` (downloaded when training starts), a FILE with timm's own keys, ``bundled``
            (ImageNet weights of tf_efficientnet_lite0, installed with this package) or ``random``.
        layers: names as timm's ``feature_info`` has them.
        pool: ``none`` keeps maps; ``avg`` and ``max`` give a vector a layer; ``cascade`` joins the maximum,
            the average and the maximum of 2 x 2 averages, three times as many channels (CPCAE-kNN, section
            3.2; its exact poolings are in a lost figure, so these are ours: docs/methods/cpcae_knn.md, note
            5).

    Attributes:
        channels: of each layer, after pooling.
        strides: of each layer, in pixels of the image.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self, name: str, weights: Annotated[str, PRETRAINED], layers: Sequence[str], pool: Pool
    ) -> None:
        super().__init__()
        sources.check(name, weights)
        self.name = name
        self.weights = weights
        self.layers = tuple(layers)
        self.pool = pool
        self.making, self.order, facts = timm_networks.chosen(name, self.layers)
        self.network = timm_networks.random_frozen(name, self.layers)
        self.channels = [fact["num_chs"] * (3 if pool == "cascade" else 1) for fact in facts]
        self.strides = [fact["reduction"] for fact in facts]
        for key, values in timm_networks.statistics(self.network).items():
            self.register_buffer(key, values, persistent=False)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the network takes images of this size."""
        timm_networks.check_takes(self.name, self.layers, height, width)

    # The signature is torch's.
    def train(self, mode: bool = True) -> "FeatureExtractor":  # noqa: ARG002, FBT001, FBT002
        """Stay in eval mode: frozen statistics are frozen."""
        return super().train(False)  # noqa: FBT003

    def maps(self) -> "FeatureExtractor":
        """Return itself. ConfigError: it pools, but maps are wanted."""
        if self.pool != "none":
            raise ConfigError(f"model.backbone.pool: this method wants maps, so give none, not {self.pool}")
        return self

    def vectors(self) -> "FeatureExtractor":
        """Return itself. ConfigError: it does not pool, but vectors are wanted."""
        if self.pool == "none":
            raise ConfigError(
                "model.backbone.pool: this method wants a vector an image; give avg, max or cascade"
            )
        return self

    def load_pretrained(self) -> None:
        """Give the network the weights that were asked for.

        Raises:
            ConfigError: they cannot be had, or do not fit.
        """
        if self.weights != "random":
            found = sources.pretrained(self.name, self.weights, self.making)
            frozen = timm_networks.frozen(found, timm_networks.foldable(self.name, self.layers))
            self.network.load_state_dict(frozen.state_dict())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return each layer's features, in the order asked for.

        They are (B, C, h, w) float32 maps, or (B, C) when pooled.
        """
        few = FEW if image.device.type == "cpu" else len(image)
        few = 1 if image.shape[2] * image.shape[3] > LARGE else few
        parts = [self._levels(part) for part in torch.split(image, max(1, few))]
        return [torch.cat(level).contiguous() for level in zip(*parts, strict=True)]

    @torch.no_grad()
    def _levels(self, image: Tensor) -> list[Tensor]:
        normalised = (image.float() - self.mean) / self.std
        levels = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return [pooled(levels[index].float(), self.pool) for index in self.order]


def pooled(level: Tensor, pool: Pool) -> Tensor:
    """Return (B, C, h, w) features as they are, or as one vector an image; see `FeatureExtractor`."""
    if pool == "none":
        return level
    parts = []
    if pool in {"max", "cascade"}:
        parts.append(adaptive_max_pool2d(level, 1))
    if pool in {"avg", "cascade"}:
        parts.append(adaptive_avg_pool2d(level, 1))
    if pool == "cascade":
        small = min(level.shape[2:]) < 2
        parts.append(adaptive_max_pool2d(level if small else avg_pool2d(level, 2), 1))
    return torch.cat(parts, dim=1).flatten(1)
