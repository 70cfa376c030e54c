"""Rotation of normal images, as DRAEM's code does it."""

from collections.abc import Sequence
from typing import final

import numpy as np

from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.geometry import rotated


@final
class Rotation(Augmentation):
    """Rotates about the centre, bilinear, zero fill, with a probability and by U(low, high) degrees.

    DRAEM's code: probability 0.3, -90 to 90; its text: -45 to 45 (docs/methods/draem.md, note 7).
    """

    def __init__(self, probability: float, degrees: Sequence[float]) -> None:
        if len(degrees) != 2:
            raise ConfigError(f"data.augment.degrees: {list(degrees)} is no range; give [low, high]")
        self.probability = probability
        self.low, self.high = degrees

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the turned image, or the image itself."""
        if rng.random() >= self.probability:
            return image
        return rotated(image, rng.uniform(self.low, self.high))
