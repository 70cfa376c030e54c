"""No synthesis: for methods that train on normal images alone.

It is a synthesizer all the same, so that nothing that trains asks whether there is one: ``image == clean``
and a mask that is False everywhere are what a normal image has.
"""

from typing import final

import numpy as np

from anomaly_lab.synthesis.base import Synthesizer


@final
class NoSynthesis(Synthesizer):
    """Hands the image on as it is."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002
        """Return the (H, W, 3) uint8 image itself, not a copy, and an all-False (H, W) bool mask."""
        return image, np.zeros(image.shape[:2], bool)
