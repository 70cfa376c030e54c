"""CapsNet's network with two class capsules: Sabour, Frosst, Hinton, NeurIPS 2017, sections 4 and 4.1."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, final

import torch
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.capsules import Capsules, squash

CLASSES = 2  # 0 is normal, 1 anomalous
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value: ITU-R BT.601


@final
class CapsuleNetwork(nn.Module):
    """Turns an image into a capsule for each class, and a class's capsule back into an image.

    Convolutions, primary capsules, routing by agreement to the class capsules; fully connected layers back.
    The paper's network takes 28 x 28 grey values; what photographs take is ours (docs/methods/capsnet.md,
    note 2).

    Args:
        image_size: side, or [height, width], of the images.
        colours: ``grey`` makes one channel of the image's three.
        convolutions: before the primary capsules: [channels, kernel, stride] each, a ReLU after each.
        primary: maps of primary capsules, dim of a capsule, kernel and stride of their convolution.
        class_dim: entries of a class capsule (16).
        routing_iterations: from the primary capsules to the class capsules (3).
        decoder: hidden widths of the way back ([512, 1024]).
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        image_size: int | Sequence[int],
        colours: Literal["grey", "rgb"],
        convolutions: Sequence[Sequence[int]],
        primary: Sequence[int],
        class_dim: int,
        routing_iterations: int,
        decoder: Sequence[int],
    ) -> None:
        super().__init__()
        _check(convolutions, primary, class_dim, routing_iterations, decoder)
        self.height, self.width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.channels = 1 if colours == "grey" else 3
        maps, self.primary_dim, kernel, stride = primary
        steps = [*convolutions, [maps * self.primary_dim, kernel, stride]]
        sides = _sides_after((self.height, self.width), steps)
        before = [self.channels, *(step[0] for step in steps)]
        layers = [
            nn.Conv2d(width, channels, kernel, stride)
            for width, (channels, kernel, stride) in zip(before[:-1], steps, strict=True)
        ]
        self.convolutions = nn.Sequential(
            *(part for layer in layers[:-1] for part in (layer, nn.ReLU(inplace=True)))
        )
        self.primary = layers[-1]
        count = maps * sides[0] * sides[1]
        self.classes = Capsules(count, self.primary_dim, CLASSES, class_dim, routing_iterations)
        widths = [CLASSES * class_dim, *decoder]
        hidden = [
            part for one, other in pairwise(widths) for part in (nn.Linear(one, other), nn.ReLU(inplace=True))
        ]
        values = self.channels * self.height * self.width
        self.decoder = nn.Sequential(*hidden, nn.Linear(widths[-1], values), nn.Sigmoid())

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless these are the sides that the capsules were counted for."""
        if (height, width) != (self.height, self.width):
            given = f"{self.height} x {self.width}, but images have {height} x {width}"
            raise ConfigError(f"model.network.image_size: {given}; give it the size that data makes")

    def seen(self, image: Tensor) -> Tensor:
        """Return what the network sees of (B, 3, H, W) images: (B, 1 or 3, H, W) float32 in [0, 1]."""
        image = image.float()
        if self.channels == 1:
            image = LUMA[0] * image[:, :1] + LUMA[1] * image[:, 1:2] + LUMA[2] * image[:, 2:]
        return image

    def forward(self, seen: Tensor) -> Tensor:
        """Return the (B, 2, class_dim) class capsules, float32, each shorter than 1."""
        x = self.primary(self.convolutions(seen)).float()
        # A capsule is what its filters say at one place: (B, maps, dim, h, w) to (B, maps * h * w, dim).
        places = x.view(len(x), -1, self.primary_dim, *x.shape[2:]).movedim(2, -1).flatten(1, 3)
        capsules: Tensor = self.classes(squash(places))
        return capsules

    def decoded(self, capsules: Tensor, label: Tensor) -> Tensor:
        """Return what is reconstructed from one capsule of each image, the other one set to 0.

        Args:
            capsules: (B, 2, class_dim) float32.
            label: (B,) bool, True for the anomalous capsule.

        Returns:
            (B, 1 or 3, H, W) float32 in [0, 1].
        """
        flat: Tensor = self.decoder((capsules * of_class(label)[..., None]).flatten(1)).float()
        return flat.view(-1, self.channels, self.height, self.width)


def of_class(label: Tensor) -> Tensor:
    """Return (B, 2) bool of (B,) bool labels: whether it is normal, whether it is anomalous."""
    return torch.stack([~label, label], dim=1)


def lengths(capsules: Tensor) -> Tensor:
    """Return the (B, 2) lengths of (B, 2, class_dim) class capsules: normal, anomalous; 0 to 1."""
    found: Tensor = torch.linalg.vector_norm(capsules, dim=2)
    return found


def _check(
    convolutions: Sequence[Sequence[int]],
    primary: Sequence[int],
    class_dim: int,
    routing_iterations: int,
    decoder: Sequence[int],
) -> None:
    """Raise ConfigError for a layer that is no layer."""
    for step in convolutions:
        if len(step) != 3 or min(step) < 1:
            wanted = "give [channels, kernel, stride] for each, at least 1"
            raise ConfigError(f"model.network.convolutions: {list(step)}; {wanted}")
    if len(primary) != 4 or min(primary) < 1:
        wanted = "give [maps, dim, kernel, stride], at least 1"
        raise ConfigError(f"model.network.primary: {list(primary)}; {wanted}")
    numbers = {"class_dim": class_dim, "routing_iterations": routing_iterations}
    numbers |= {"decoder": min(decoder, default=1)}
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"model.network.{name}: {value}; give at least 1")


def _sides_after(sides: tuple[int, int], steps: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the sides of the grid of primary capsules. ConfigError: a kernel finds no place."""
    for _, kernel, stride in steps:
        if min(sides) < kernel:
            shown = f"a kernel of {kernel} does not fit into {sides[0]} x {sides[1]}"
            way_out = "give larger images (data.image_size), smaller kernels or strides"
            raise ConfigError(f"model.network.convolutions: {shown}; {way_out}")
        sides = ((sides[0] - kernel) // stride + 1, (sides[1] - kernel) // stride + 1)
    return sides
