"""The contract of pseudo anomalies: a pure function of (image, rng), run in the worker, in training only."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class Synthesizer(ABC):
    """Turns a normal image into an anomalous one with its mask.

    Attributes:
        source: where the anomalous content comes from, in words, for the log and the manifest.
        ratio: so many pseudo images per normal one join all normal ones in an epoch; None: each image may
            become one.
    """

    source: str = "none"
    ratio: float | None = None

    def setup(self, normals: Sequence[np.ndarray]) -> None:  # noqa: B027 - most synthesizers need nothing
        """Receive the (H, W, 3) uint8 training images once, before training and in the main process."""

    @abstractmethod
    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an (H, W, 3) uint8 image and its (H, W) bool mask; no pixel changes outside the mask.

        ``image`` is (H, W, 3) uint8 RGB and is never altered. All randomness comes from ``rng``.
        """
