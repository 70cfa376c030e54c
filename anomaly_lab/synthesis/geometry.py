"""Windows of an image, for patches that are cut and pasted, turns of it, and other sizes."""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

Resize = Literal["antialias", "opencv"]

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


def resized(image: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    """Return an (h, w, 3) uint8 image as (H, W, 3) uint8, bilinear; photographs and textures alike.

    ``antialias`` weighs all pixels that a smaller one covers, as PIL and torchvision do; an exported graph
    can repeat it exactly. ``opencv`` is cv2.resize with INTER_LINEAR, to the grey level: it looks at four
    pixels however many one covers, so that a smaller image is sharper and noisier.
    """
    if resize == "opencv":
        return np.asarray(cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=cv2.INTER_LINEAR))
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    smooth = interpolate(pixels, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    return np.asarray(smooth.round().clamp(0, 255).numpy().astype(np.uint8))
