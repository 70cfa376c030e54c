"""The ten augmenters of DRAEM's texture: pure functions of (image, rng), (H, W, 3) uint8 RGB to the same.

The parameters are the authors', with the defaults of their library imgaug (docs/methods/draem.md, note 3).
It took their BGR images for RGB, so ``brightness`` and ``hue_saturation`` saw red and blue swapped; here
images are RGB. From albumentations come the operations that are the same: its equalise and autocontrast
differ from PIL's, its hue shift leaves greys grey.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from albumentations.augmentations.pixel.functional import invert, posterize, solarize
from PIL import ImageEnhance, ImageOps
from PIL.Image import fromarray

from anomaly_lab.synthesis.geometry import rotated

PaperAugmenter = Literal[
    "posterise", "sharpness", "solarise", "equalise", "brightness", "hue_saturation", "autocontrast"
]
AugmenterName = Literal[PaperAugmenter, "gamma_contrast", "invert", "rotate"]
LEVELS = np.arange(256.0)
BRIGHTNESS_SPACES = (  # to a colour space, back, and its channel of brightness
    (cv2.COLOR_RGB2YCrCb, cv2.COLOR_YCrCb2RGB, 0),
    (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB, 2),
    (cv2.COLOR_RGB2HLS, cv2.COLOR_HLS2RGB, 1),
    (cv2.COLOR_RGB2Lab, cv2.COLOR_Lab2RGB, 0),
    (cv2.COLOR_RGB2Luv, cv2.COLOR_Luv2RGB, 0),
    (cv2.COLOR_RGB2YUV, cv2.COLOR_YUV2RGB, 0),
)


def _gamma_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _looked_up(image, 255 * (LEVELS[:, None] / 255) ** rng.uniform(0.5, 2.0, 3))


def _brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    to, back, channel = BRIGHTNESS_SPACES[rng.integers(len(BRIGHTNESS_SPACES))]
    factor = rng.uniform(0.8, 1.2)
    shift = rng.integers(-30, 31)
    table = np.stack([LEVELS] * 3, 1)
    table[:, channel] = (
        _levels(LEVELS * factor) + shift if rng.random() < 0.5 else _levels(LEVELS + shift) * factor
    )
    return cv2.cvtColor(_looked_up(cv2.cvtColor(image, to), table), back)


def _hue_saturation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    hue, saturation = rng.integers(-50, 51, 2)  # of 255; OpenCV's hue has 180 steps
    table = np.stack([(LEVELS + int(hue * 180 / 255)) % 180, LEVELS + saturation, LEVELS], 1)
    return cv2.cvtColor(_looked_up(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def _looked_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value by its channel's column of a (256, 3) table."""
    return cv2.LUT(image, _levels(table).astype(np.uint8)[None])


def _levels(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255))


AUGMENTERS: dict[AugmenterName, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "gamma_contrast": _gamma_contrast,  # to the power U(0.5, 2), as shares of 255, per channel
    "brightness": _brightness,  # times U(0.8, 1.2), plus -30..30, in random order, in a random space
    # from smoothed (0) over unchanged (1) to sharpened (2)
    "sharpness": lambda image, rng: np.asarray(
        ImageEnhance.Sharpness(fromarray(image)).enhance(rng.uniform(0, 2))
    ),
    "hue_saturation": _hue_saturation,  # each by -50..50 of 255; hue wraps, saturation clips
    "solarise": lambda image, rng: (
        solarize(image, rng.uniform(32, 128) / 255) if rng.random() < 0.5 else image
    ),
    "posterise": lambda image, rng: posterize(image, int(rng.integers(1, 9))),  # keeps the highest 1..8 bits
    "invert": lambda image, _: invert(image),
    # per channel, after cutting 0..20 % at each end
    "autocontrast": lambda image, rng: np.asarray(
        ImageOps.autocontrast(fromarray(image), int(rng.integers(21)))
    ),
    "equalise": lambda image, _: np.asarray(ImageOps.equalize(fromarray(image))),  # per channel
    "rotate": lambda image, rng: rotated(image, rng.uniform(-45, 45)),
}
