"""Transposed convolutions from a vector to a picture: VT-ADL's, PIADE's, the pyramidal autoencoder's.

Mishra et al., ISIE 2021, and Mishra, Piciarelli, Foresti, Int. J. Neural Systems 2020, released codes.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError


@final
class VectorDecoder(nn.Module):
    """Lays a vector out as (dim / side^2, side, side) and enlarges it.

    It maps (B, dim) to (B, 3, H, W) float32 in [-1, 1]. Each layer but the last has a batch norm and a ReLU,
    the last a tanh. Where the layers' size is not that of the image, the picture is resized (bilinear,
    antialiased); the released layers give 512 x 512, which nothing resizes. PyTorch's own initialisation, as
    there: its Kaiming loop does not reach transposed convolutions.

    Args:
        dim: of the vector, a multiple of side^2.
        side: of the square that it is laid out in.
        layers: channels, kernel, stride and padding of each transposed convolution; the last has three
            channels.

    Attributes:
        sides: of the square after each layer.
    """

    def __init__(self, dim: int, side: int, layers: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__()
        if side < 1 or dim % side**2:
            shown = f"{side}; {side} x {side} values do not divide the {dim} of the vector"
            raise ConfigError(f"model.decoder.side: {shown}; change one of them")
        self.channels = dim // side**2
        self.side = side
        self.sides = list[int]()
        for channels, kernel, stride, padding in layers:
            side = (side - 1) * stride - 2 * padding + kernel
            self.sides.append(side)
            if min(channels, kernel, stride, side) < 1 or padding < 0:
                row = [channels, kernel, stride, padding]
                wanted = "no padding below 0, all else at least 1"
                raise ConfigError(f"model.decoder.layers: {row} makes a side of {side}; {wanted}")
        if not layers or layers[-1][0] != 3:
            raise ConfigError("model.decoder.layers: the last one must have 3 channels, red, green and blue")
        widths = [self.channels, *(channels for channels, *_ in layers)]
        made = [
            nn.ConvTranspose2d(before, after, kernel, stride, padding)
            for before, (after, kernel, stride, padding) in zip(widths, layers, strict=False)
        ]
        hidden = [
            part
            for conv in made[:-1]
            for part in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))
        ]
        self.hidden = nn.Sequential(*hidden)
        self.out = made[-1]

    def forward(self, vector: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the picture at (H, W); its last layer runs in float32 under mixed precision."""
        features = self.hidden(vector.view(-1, self.channels, self.side, self.side))
        with torch.autocast(vector.device.type, enabled=False):
            picture: Tensor = self.out(features.to(self.out.weight.dtype)).tanh()
            if picture.shape[2:] != size:
                picture = interpolate(picture, size, mode="bilinear", antialias=True)
        return picture
