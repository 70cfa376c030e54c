"""The levels of the pyramidal autoencoder: each squeezes pooled features of a network and gives them back."""

from typing import final

from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import BatchNormOfAny, conv, linears

MIDDLE = 16  # channels of the first convolution
LATENT = 8  # values of a level's latent vector


@final
class PyramidLevel(nn.Module):
    """One autoencoder of the pyramid, for C pooled features of an image.

    Encoder: 1 x 1 convolution to C / reduction without bias, batch norm, ReLU; 3 x 3 to 16 and to 8, each
    with batch norm and ReLU; 1 x 1 to 8. On the single place that is left after pooling, of a 3 x 3 kernel
    only its middle learns. Decoder: linear layers of 128, 512 and C (docs/methods/pyramidal_ae.md, note 2).

    Args:
        channels: C.
        reduction: of the channels, 1, 2, 4 or 8 in the paper.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if reduction < 1 or channels % reduction:
            raise ConfigError(f"model.reductions: {reduction} does not divide {channels} channels")
        self.encoder = nn.Sequential(
            conv(channels, channels // reduction, 1),
            _convolution(channels // reduction, MIDDLE),
            _convolution(MIDDLE, LATENT),
            nn.Conv2d(LATENT, LATENT, 1),
        )
        self.decoder = linears([LATENT, 128, 512, channels])

    def encode(self, pooled: Tensor) -> Tensor:
        """Return the (B, 8) latent vectors of (B, C) features."""
        latent: Tensor = self.encoder(pooled[:, :, None, None]).flatten(1)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return (B, C) features, none below 0, of (B, 8) latent vectors."""
        features: Tensor = self.decoder(latent[:, :, None, None]).flatten(1)
        return features


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), BatchNormOfAny(after), nn.ReLU(inplace=True))
