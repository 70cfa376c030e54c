"""How far two pictures lie apart in the features of a frozen network (Johnson, Alahi, Fei-Fei, ECCV 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, final

import torch
from torch import Tensor, nn

from anomaly_lab.backbones import timm_networks
from anomaly_lab.backbones import weights as sources
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import PRETRAINED


@final
class PerceptualLoss(nn.Module):
    """The squared difference of two pictures in one layer of a pretrained network.

    PIADE's code takes VGG-11 up to the second convolution, without its ReLU (``features.3``), and gives it
    values in [0, 1] as they are. The network is frozen and always in eval mode; gradients pass through it to
    the pictures. Its weights belong to a method's state, once.

    Args:
        name: timm's, with the tag of the weights after a dot (``vgg11.tv_in1k``).
        weights: ``imagenet`` (downloaded when training starts), a FILE with timm's own keys, ``bundled``
            (those of tf_efficientnet_lite0) or ``random``.
        layer: one of timm's ``feature_info``, or any step of a network that is a chain, as VGG or a ResNet.
    """

    def __init__(self, name: str, weights: Annotated[str, PRETRAINED], layer: str) -> None:
        super().__init__()
        with _named():
            sources.check(name, weights)
            level = _level(name, layer)
            self.making, _, _ = timm_networks.chosen(name, (level,))
            self.network = timm_networks.random_frozen(name, (level,))
        self.name = name
        self.weights = weights
        self.level = level
        self.last = None if layer == level else layer.replace(".", "_")

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the network takes images of this size."""
        timm_networks.check_takes(self.name, (self.level,), height, width)

    # The signature is torch's.
    def train(self, mode: bool = True) -> "PerceptualLoss":  # noqa: ARG002, FBT001, FBT002
        """Stay in eval mode: frozen statistics are frozen."""
        return super().train(False)  # noqa: FBT003

    def load_pretrained(self) -> None:
        """Give the network the weights that were asked for.

        Raises:
            ConfigError: they cannot be had, or do not fit.
        """
        if self.weights == "random":
            return
        with _named():
            found = sources.pretrained(self.name, self.weights, self.making)
        frozen = timm_networks.frozen(found, timm_networks.foldable(self.name, (self.level,)))
        self.network.load_state_dict(frozen.state_dict())

    def forward(self, picture: Tensor, image: Tensor) -> Tensor:
        """Return the squared difference of two (B, 3, H, W) pictures, (B, h, w) float32.

        It is averaged over the layer's channels, so that its mean is the papers' loss. Under mixed precision
        it stays in float32, as a difference of nearly equal features would be rounded away.
        """
        with torch.autocast(image.device.type, enabled=False):
            difference = self.features(picture.float()) - self.features(image.float())
        return difference.square().mean(dim=1)

    def features(self, image: Tensor) -> Tensor:
        """Return the layer's (B, C, h, w) features of (B, 3, H, W) pictures, which are not normalised."""
        x = image.contiguous(memory_format=torch.channels_last)
        if self.last is None:
            levels: list[Tensor] = self.network(x)
            return levels[0]
        for name, part in self.network.items():
            x = part(x)
            if name == self.last:
                break
        return x


def _level(name: str, layer: str) -> str:
    """Return the first layer of timm's ``feature_info`` that has ``layer`` behind or in it.

    Raises:
        ConfigError: there is none.
    """
    whole, making = timm_networks.sketched(name)
    known = [level["module"] for level in whole.feature_info.info]
    if layer in known:
        return layer
    steps = [step.replace("_", ".") for step in whole] if "feature_cls" not in making else []
    if layer not in steps:
        raise ConfigError(
            f"model.backbone.layer: {layer} is no layer of {name}; it has {', '.join(steps or known)}"
        )
    behind = steps[steps.index(layer) :]
    return next(level for level in map(str, known) if level in behind)


@contextmanager
def _named() -> Iterator[None]:
    """Name the key that a perceptual loss stands under in whatever is wrong with its network."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.backbone.", "model.perceptual.")) from error
