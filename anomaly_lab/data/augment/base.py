"""The contract of an augmentation of normal images: whatever happens here stays normal."""

from abc import ABC, abstractmethod

import numpy as np


class Augmentation(ABC):
    """Turns a normal image into another normal one, in the loader's worker, before any pseudo anomaly.

    Attributes:
        copies: of each image in an epoch, beside the untouched one; 0: there is one of each, and it may be
            turned.
    """

    copies: int = 0

    @abstractmethod
    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image of the same shape, (H, W, 3) uint8 RGB.

        The input stays untouched, and ``rng`` is the only chance: the same state gives the same image.
        """
