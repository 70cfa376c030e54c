"""Windows of an image, for patches that are cut and pasted, and turns of it."""

from collections.abc import Sequence

import cv2
import numpy as np

Window = tuple[slice, slice]


def random_window(sides: Sequence[int], within: Sequence[int], rng: np.random.Generator) -> Window:
    """Return a window of (height, width) somewhere in (H, W), each place as likely as any other."""
    top, left = (int(rng.integers(whole - own + 1)) for own, whole in zip(sides[:2], within[:2], strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def rotated(array: np.ndarray, degrees: float) -> np.ndarray:
    """Return an (H, W) or (H, W, C) array turned about its centre, bilinear, zero outside."""
    height, width = array.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(array, turn, (width, height), flags=cv2.INTER_LINEAR)
