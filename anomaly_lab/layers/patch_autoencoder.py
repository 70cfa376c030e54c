"""The conditional patch autoencoder of CPCAE-kNN (Saeedi, Giusti, VISAPP 2022, section 3.1)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, interpolate, unfold

from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here


@final
class PatchAutoencoder(nn.Module):
    """Reconstructs an image from overlapping patches, each of which is told where it lies.

    Strided convolutions to a dense latent vector and back; the condition joins before the latent vector and
    after it. Patch size, overlap, filters, latent size and the weight of the penalty are in a lost figure:
    all numbers are ours (docs/methods/cpcae_knn.md, notes 1 to 3).

    A larger image is made smaller first, and its reconstruction larger again (sections 3.1 and 3.2); how, is
    ours: bilinear, antialiased on the way down (note 4).

    Args:
        image_size: side, or [height, width], at which images are cut; patches must tile it, and no image is
            smaller.
        patch_size: side of a patch, a multiple of 2 to the number of convolutions.
        patch_stride: from one patch to the next.
        channels: of each encoder convolution, which halves the side.
        latent_dim: of the dense bottleneck.
        condition: ``scalar`` is k / K for patch k = 1 .. K in reading order, ``onehot`` has an entry a patch.
        activity_l1: weight of the L1 penalty on the latent vector (equation 3).
        patches_per_image: drawn for a training step.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        image_size: int | Sequence[int],
        patch_size: int,
        patch_stride: int,
        channels: Sequence[int],
        latent_dim: int,
        condition: Literal["scalar", "onehot"],
        activity_l1: float,
        patches_per_image: int,
    ) -> None:
        super().__init__()
        self.arguments = (image_size, patch_size, patch_stride, channels, latent_dim, condition, activity_l1)
        self.patches_per_image = patches_per_image
        self.activity_l1 = activity_l1
        self.size = patch_size
        self.stride = patch_stride
        self.height, self.width = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_tiling((self.height, self.width), patch_size, patch_stride, channels)
        if min(latent_dim, patches_per_image, *channels) < 1 or activity_l1 < 0:
            raise ConfigError(
                "model.autoencoder: latent_dim, patches_per_image and channels are at least 1, no weight < 0"
            )
        count = ((self.height - patch_size) // patch_stride + 1) * (
            (self.width - patch_size) // patch_stride + 1
        )
        position = torch.eye(count) if condition == "onehot" else (torch.arange(count)[:, None] + 1) / count
        self.register_buffer("position", position.float(), persistent=False)  # (K, C)
        self.position: Tensor
        self.side = patch_size // 2 ** len(channels)
        flat = channels[-1] * self.side**2
        told = self.position.shape[1]
        steps = zip((3, *channels[:-1]), channels, strict=True)
        self.encoder = nn.Sequential(
            *(layer for before, after in steps for layer in _down(before, after)), nn.Flatten()
        )
        self.to_latent = nn.Linear(flat + told, latent_dim)
        self.from_latent = nn.Linear(latent_dim + told, flat)
        back = [
            layer
            for before, after in zip(channels[:0:-1], channels[-2::-1], strict=True)
            for layer in _up(before, after)
        ]
        last = nn.ConvTranspose2d(channels[0], 3, 4, stride=2, padding=1)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (channels[-1], self.side, self.side)), *back, last, nn.Sigmoid()
        )

    def another(self) -> "PatchAutoencoder":
        """Return one of the same shape with weights of its own."""
        return PatchAutoencoder(*self.arguments, self.patches_per_image)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError for images that are smaller than what the patches tile."""
        if height < self.height or width < self.width:
            given = f"{self.height} x {self.width}, but images have only {height} x {width}"
            raise ConfigError(f"model.autoencoder.image_size: {given}; give it at most their size")

    def forward(self, patches: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (P, 3, s, s) reconstruction and the (P, latent_dim) latent vectors.

        ``position`` is (P, C).
        """
        latent = self.encode(patches, position)
        return self.decoder(self.from_latent(torch.cat([latent, position], dim=1))), latent

    def encode(self, patches: Tensor, position: Tensor) -> Tensor:
        """Return the (P, latent_dim) latent vectors of (P, 3, s, s) patches at (P, C) positions."""
        latent: Tensor = self.to_latent(torch.cat([self.encoder(patches), position], dim=1)).relu()
        return latent

    def loss(self, image: Tensor) -> Tensor:
        """Return the squared error summed over a patch plus the penalty (equation 3).

        It is averaged over the patches drawn, and taken at `image_size`: a larger image is made smaller.
        """
        patches = self.patches(image)
        batch, count = patches.shape[:2]
        drawn = here.rand(batch, count, image.device).argsort(dim=1)[:, : self.patches_per_image]
        wanted = patches[torch.arange(batch, device=image.device)[:, None], drawn].flatten(0, 1)
        again, latent = self(wanted, self.position[drawn].flatten(0, 1))
        error = (again.float() - wanted.float()).square().sum((1, 2, 3))
        loss: Tensor = (error + self.activity_l1 * latent.float().abs().sum(dim=1)).mean()
        return loss

    def reconstruct(self, image: Tensor) -> Tensor:
        """Return the image put together from its reconstructed patches: (B, 3, H, W) float32, as large as it.

        Overlaps are averaged.
        """
        size = (self.height, self.width)
        again = torch.stack([self(few, self.position)[0].float() for few in self.patches(image)])
        columns = again.flatten(2).transpose(1, 2)
        total = fold(columns, size, self.size, stride=self.stride)
        total = total / fold(torch.ones_like(columns), size, self.size, stride=self.stride)
        if tuple(image.shape[2:]) == size:
            return total
        return interpolate(total, image.shape[2:], mode="bilinear", align_corners=False)

    def latent(self, image: Tensor) -> Tensor:
        """Return the latent vectors of an image's K patches, joined in reading order.

        They are (B, K * latent_dim) float32.
        """
        return torch.stack([self.encode(few, self.position).float().flatten() for few in self.patches(image)])

    def patches(self, image: Tensor) -> Tensor:
        """Return (B, K, 3, s, s) patches in reading order, of images that are made as small as wanted."""
        size = (self.height, self.width)
        if tuple(image.shape[2:]) != size:
            image = interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
        columns = unfold(image, self.size, stride=self.stride)
        patches: Tensor = columns.transpose(1, 2).reshape(len(image), -1, 3, self.size, self.size)
        return patches


def _check_tiling(sides: tuple[int, int], size: int, stride: int, channels: Sequence[int]) -> None:
    """Raise ConfigError unless the patches tile the image and the convolutions can halve them."""
    if not channels:
        raise ConfigError("model.autoencoder.channels: give the width of at least one convolution")
    multiple = 2 ** len(channels)
    if size > min(sides) or not 1 <= stride <= size or size % multiple:
        tiles = f"a multiple of {multiple}, at most the image's side, with a stride of 1 to its own side"
        raise ConfigError(f"model.autoencoder.patch_size: {size} (stride {stride}); give {tiles}")
    if any((side - size) % stride for side in sides):
        shown = f"{size} with stride {stride} does not tile {sides[0]} x {sides[1]}"
        raise ConfigError(
            f"model.autoencoder.patch_size: {shown}; change it, patch_stride or data.image_size"
        )


def _down(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)


def _up(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()
