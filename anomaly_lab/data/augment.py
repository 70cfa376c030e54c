"""Augmentation of normal images: whatever happens here stays normal."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np

from anomaly_lab.errors import ConfigError


class Augmentation(ABC):
    """Turns a normal image into another normal one."""

    copies: int = 0  # of each image in an epoch, beside the untouched one; 0: there is one, and it may be turned

    @abstractmethod
    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image of the same shape, (H, W, 3) uint8; the input stays untouched, ``rng`` is the only chance."""


@final
class Rotation(Augmentation):
    """Rotates about the centre, bilinear, zero fill, with a probability and by U(low, high) degrees.

    DRAEM's code: probability 0.3, -90 to 90; its text: -45 to 45 (methods 1.2, 1.6).
    """

    def __init__(self, probability: float, degrees: Sequence[float]) -> None:
        if len(degrees) != 2:
            raise ConfigError(f"data.augment.degrees: {list(degrees)} is no range; give [low, high]")
        self.probability, (self.low, self.high) = probability, degrees

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the turned image, or the image itself."""
        if rng.random() >= self.probability:
            return image
        from anomaly_lab.synthesis.augmenters import rotated  # noqa: PLC0415 - its library takes half a second

        return rotated(image, rng.uniform(self.low, self.high))
