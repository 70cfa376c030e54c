"""No synthesis: for methods that train on normal images alone."""

from typing import final

import numpy as np

from anomaly_lab.synthesis.base import Synthesizer


@final
class NoSynthesis(Synthesizer):
    """Hands the image on as it is."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002
        """Return the (H, W, 3) uint8 image itself, not a copy, and an (H, W) mask that is False everywhere."""
        return image, np.zeros(image.shape[:2], bool)
