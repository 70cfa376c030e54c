"""CutPaste: a patch of the image itself, slightly recoloured, pasted somewhere else."""

import math
from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from albumentations.augmentations.pixel.functional import (
    adjust_brightness_torchvision,
    adjust_contrast_torchvision,
    adjust_hue_torchvision,
    adjust_saturation_torchvision,
)

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import random_window

ADJUSTMENTS = (  # pure functions of an image and a factor, and the factor that changes nothing
    (adjust_brightness_torchvision, 1.0),
    (adjust_contrast_torchvision, 1.0),
    (adjust_saturation_torchvision, 1.0),
    (adjust_hue_torchvision, 0.0),
)


@final
class CutPaste(Synthesizer):
    """Li et al., CVPR 2021, section 2; no code was released. The yaml explains each argument.

    The mask holds the pasted pixels that differ from what they cover; on a plain image it may be empty.
    """

    source = "the image itself"

    def __init__(  # noqa: PLR0913 - hyperparameters
        self,
        *,
        probability: float,
        variant: Literal["normal", "scar", "union"],
        area: Sequence[float],
        aspect: float,
        aspect_law: Literal["log_uniform", "halves", "uniform"],
        scar_width: Sequence[float],
        scar_height: Sequence[float],
        rotation: Sequence[float],
        jitter: float,
    ) -> None:
        self.probability = probability
        self.variant = variant
        self.area = area
        self.aspect = aspect
        self.aspect_law = aspect_law
        self.scar_width = scar_width
        self.scar_height = scar_height
        self.rotation = rotation
        self.jitter = jitter
        if not 0 <= probability <= 1:
            raise ConfigError(f"synthesis.probability: {probability} is not a share; give a number in [0, 1]")
        if not 0 <= jitter <= 0.5:
            raise ConfigError(f"synthesis.jitter: {jitter}; give a number in [0, 0.5]")
        ranges = {"area": area, "scar_width": scar_width, "scar_height": scar_height, "rotation": rotation}
        for name, ends in ranges.items():
            if len(ends) != 2 or ends[0] > ends[1] or (ends[0] <= 0 and name != "rotation"):
                raise ConfigError(f"synthesis.{name}: {list(ends)} is not a range; give [low, high]")
        if not area[1] <= aspect <= 1:
            raise ConfigError(
                f"synthesis.aspect: {aspect}; give a number from {area[1]}, the largest area, to 1"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W, 3) uint8 image, itself if it stays clean, and its (H, W) bool mask."""
        mask = np.zeros(image.shape[:2], bool)
        if rng.random() >= self.probability:
            return image, mask
        scar = self.variant == "scar" or (self.variant == "union" and rng.random() < 0.5)
        patch, shape = self._scar(image, rng) if scar else self._rectangle(image, rng)
        window = random_window(patch.shape, image.shape, rng)
        result = image.copy()
        result[window][shape] = patch[shape]
        mask[window] = (result[window] != image[window]).any(2)
        return result, mask

    def _rectangle(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        area = rng.uniform(self.area[0], self.area[1])
        aspect = self._aspect(rng.uniform(-1, 1))
        height = image.shape[0] * math.sqrt(area / aspect)
        width = image.shape[1] * math.sqrt(area * aspect)
        patch = self._cut(image, height, width, rng)
        return patch, np.ones(patch.shape[:2], bool)

    def _aspect(self, drawn: float) -> float:
        """Return the width by the height, in [aspect, 1 / aspect], of a number that is uniform in [-1, 1]."""
        if self.aspect_law == "uniform":
            return self.aspect + (drawn + 1) / 2 * (1 / self.aspect - self.aspect)
        if self.aspect_law == "halves":
            end = self.aspect if drawn < 0 else 1 / self.aspect
            return 1 + abs(drawn) * (end - 1)
        aspect: float = self.aspect**drawn
        return aspect

    def _scar(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scale = min(image.shape[:2]) / 256
        width, height = (scale * rng.uniform(low, high) for low, high in (self.scar_width, self.scar_height))
        patch = self._cut(image, height, width, rng)
        patch, shape = turned(patch, rng.uniform(self.rotation[0], self.rotation[1]))
        inside = np.s_[: image.shape[0], : image.shape[1]]
        return patch[inside], shape[inside]

    def _cut(self, image: np.ndarray, height: float, width: float, rng: np.random.Generator) -> np.ndarray:
        """Return a patch from a random place, at least a pixel and at most the image, recoloured."""
        sides = [
            int(np.clip(round(side), 1, most))
            for side, most in zip((height, width), image.shape, strict=False)
        ]
        patch = image[random_window(sides, image.shape, rng)]
        for index in rng.permutation(len(ADJUSTMENTS)):
            adjust, neutral = ADJUSTMENTS[index]
            patch = adjust(patch, neutral + rng.uniform(-self.jitter, self.jitter))
        return patch


def turned(patch: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an (h, w, 3) patch turned counterclockwise, and where it lies on its canvas.

    The canvas is as large as it needs.
    """
    cos = math.cos(math.radians(degrees))
    sin = math.sin(math.radians(degrees))
    height, width = patch.shape[:2]
    tall, wide = (
        math.ceil(a * abs(cos) + b * abs(sin) - 1e-9) for a, b in ((height, width), (width, height))
    )
    y, x = np.mgrid[:tall, :wide] - np.array([tall - 1, wide - 1])[:, None, None] / 2
    row = np.rint(y * cos + x * sin + (height - 1) / 2).astype(int)  # the nearest pixel, as the ports take it
    column = np.rint(x * cos - y * sin + (width - 1) / 2).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return patch[row.clip(0, height - 1), column.clip(0, width - 1)], inside
