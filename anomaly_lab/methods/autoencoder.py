"""A plain convolutional autoencoder, scored by what it is trained with: squared error, and dissimilarity.

The baselines "AE-MSE" and "AE-MSE+SSIM" of VT-ADL (Mishra et al., ISIE 2021, Table IV), which says nothing of
their network: it is that of Bergmann, Löwe, Fauser, Sattlegger, Steger, VISAPP 2019, Table 1 (arXiv
1807.02011).
"""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal, final

import torch
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import ssim
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch


@final
class MirroredConvolutions(nn.Module):
    """Convolutions down to one vector, and their mirror image back; (B, 3, H, W) to (B, 3, H, W) float32.

    All layers but those that give vector and picture end in a leaky ReLU; there is no norm and no output
    activation, so that the picture is near [0, 1] but unbounded. With 128 px and a vector of 100 it is the
    paper's for three colours and has 1.05 M parameters.

    Args:
        image_size: side, or [height, width], of the images.
        layers: channels, kernel and stride of each convolution. Kernel and stride are both odd or both even,
            so that a padding of half their difference makes each side exactly that of the input over the
            stride. The last layer, which gives the vector, is as large as what is left.
        latent_dim: values of the vector.
        negative_slope: of the leaky ReLUs.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        layers: Sequence[tuple[int, int, int]],
        latent_dim: int,
        negative_slope: float,
    ) -> None:
        super().__init__()
        self.sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        _check(self.sides, layers, latent_dim)
        self.shrinks = prod(stride for *_, stride in layers)
        left = (self.sides[0] // self.shrinks, self.sides[1] // self.shrinks)
        widths = [3, *(channels for channels, *_ in layers)]
        rows = [(a, b, k, s) for a, (b, k, s) in zip(widths, layers, strict=False)]
        down = [nn.Conv2d(a, b, k, s, (k - s) // 2) for a, b, k, s in rows]
        up = [nn.ConvTranspose2d(b, a, k, s, (k - s) // 2) for a, b, k, s in reversed(rows)]
        first = nn.ConvTranspose2d(latent_dim, widths[-1], left)
        last = nn.Conv2d(widths[-1], latent_dim, left)
        self.encoder = nn.Sequential(*_activated(down, negative_slope), last)
        self.decoder = nn.Sequential(*_activated([first, *up[:-1]], negative_slope))
        self.out = up[-1]

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless these are the sides that the vector's layer is made for."""
        if (height, width) != self.sides:
            given = f"{self.sides[0]} x {self.sides[1]}, but images have {height} x {width}"
            raise ConfigError(f"model.network.image_size: {given}; give it the size that data makes")

    def forward(self, image: Tensor) -> Tensor:
        """Return the picture; its last layer runs in float32 under mixed precision."""
        features = self.decoder(self.encoder(image))
        with torch.autocast(image.device.type, enabled=False):
            picture: Tensor = self.out(features.to(self.out.weight.dtype))
        return picture


@final
class Autoencoder(AnomalyMethod):
    """Scores each pixel by the terms of its loss, and an image by their mean, which is its loss.

    Args:
        network: draws an image again.
        mse_weight, ssim_weight: of the squared error, the mean over colours, and of 1 - SSIM, the same.
        learning_rate, weight_decay: of Adam, whose decay is added to the gradient.
        image_score: ``mean`` of the map, or its greatest value, ``map_max``.
    """

    def __init__(
        self,
        network: MirroredConvolutions,
        mse_weight: float,
        ssim_weight: float,
        learning_rate: float,
        weight_decay: float,
        image_score: Annotated[Literal["mean", "map_max"], EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        if min(mse_weight, ssim_weight) < 0 or mse_weight == ssim_weight == 0:
            given = f"model.mse_weight={mse_weight}, model.ssim_weight={ssim_weight}"
            raise ConfigError(f"{given}: give weights of at least 0, one of them above 0")
        if learning_rate <= 0 or weight_decay < 0:
            given = f"model.learning_rate={learning_rate}, model.weight_decay={weight_decay}"
            raise ConfigError(f"{given}: give a rate above 0 and a decay of at least 0")
        self.network = network
        self.stride = network.shrinks
        self.mse_weight = mse_weight
        self.ssim_weight = ssim_weight
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.image_score = image_score

    def forward(self, image: Tensor) -> Prediction:
        """Return the terms of each pixel, weighted and added, and the score made of them."""
        anomaly_map = self._terms(image)
        mean = self.image_score == "mean"
        return Prediction(anomaly_map, anomaly_map.mean((1, 2)) if mean else anomaly_map.amax((1, 2)))

    def _terms(self, image: Tensor) -> Tensor:
        """Return (B, H, W) float32, whose mean is the loss."""
        picture, image = self.network(image), image.float()
        terms: Tensor = self.mse_weight * (picture - image).square().mean(dim=1)
        if self.ssim_weight:
            terms = terms + self.ssim_weight * (1 - ssim(image, picture, "unit").mean(dim=1))
        return terms

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the mean over images and pixels of what a pixel is scored by."""
        loss = self._terms(batch.clean).mean()
        self.log_dict({"loss": loss.detach()})
        return loss

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self.network(image)}

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate, as in Bergmann et al. (docs/methods/autoencoder.md, note 3)."""
        return torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)


def _activated(layers: Sequence[nn.Module], negative_slope: float) -> list[nn.Module]:
    return [part for layer in layers for part in (layer, nn.LeakyReLU(negative_slope, inplace=True))]


def _check(sides: Sequence[int], layers: Sequence[tuple[int, int, int]], latent_dim: int) -> None:
    """Raise ConfigError unless the layers shrink such images to something, and by whole strides."""
    if len(sides) != 2:
        raise ConfigError(f"model.network.image_size: {list(sides)}; give one side or [height, width]")
    if not layers or latent_dim < 1:
        raise ConfigError("model.network: give at least one of layers and a latent_dim of at least 1")
    for row in layers:
        channels, kernel, stride = row
        if min(channels, stride) < 1 or kernel < stride or (kernel - stride) % 2:
            wanted = "a kernel of at least the stride, both odd or both even, all at least 1"
            raise ConfigError(f"model.network.layers: {list(row)}; {wanted}")
    shrinks = prod(stride for *_, stride in layers)
    if any(side < shrinks or side % shrinks for side in sides):
        shown = f"the strides make {shrinks}, which does not divide {sides[0]} x {sides[1]}"
        raise ConfigError(f"model.network.layers: {shown}; change them or data.image_size")
