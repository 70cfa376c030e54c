"""The demo's canvas: planes, images, a few brushes and the camera that takes the picture.

Planes are (N, N) float32 and images (3, N, N), ``ZOOM`` times as large as the file they end in. Lengths are
pixels of that file, and the origin is its centre.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256
ZOOM = 2
N = SIDE * ZOOM
Array = NDArray[Any]  # float32; cv2's and NumPy's annotations are wider than what they return
Colour = tuple[float, float, float]
X, Y = np.meshgrid(*[(np.arange(N, dtype=np.float32) + 0.5) / ZOOM - SIDE / 2] * 2)


class Drawing(NamedTuple):
    """A part with one defect."""

    image: Array  # (3, N, N)
    shape: Array  # (N, N) in [0, 1]: how far the defect covers each point


class Scene(NamedTuple):
    """A flawless part before the camera."""

    image: Array  # (3, N, N) in about [0, 1]
    surface: Array  # (N, N) in [0, 1]: where a surface defect may lie
    light: tuple[float, float]  # unit vector in the image plane, towards the lamp
    own: Mapping[str, Callable[[np.random.Generator], Drawing]]  # defects that need the part drawn anew


def ramp(inside: Array) -> Array:
    """Antialiased coverage of a region, given the signed distance inside it."""
    return np.clip(inside * ZOOM + 0.5, 0, 1)


def soft(inside: Array, width: float) -> Array:
    """Smooth step from 0 at ``-width / 2`` to 1 at ``width / 2``."""
    t = np.clip(inside * (1 / width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def bell(x: Array, width: float) -> Array:
    """Bump of height 1 that falls to 1/e at ``width``."""
    t = x * (1 / width)
    return np.exp(-t * t)


def tinted(tone: Array, colour: Colour) -> Array:
    """A plane of grey values as an image of one hue."""
    return tone * np.array(colour, np.float32)[:, None, None]


def mix(image: Array, paint: Array | float, alpha: Array) -> Array:
    """Lay ``paint`` over ``image`` with the opacity ``alpha``."""
    return image + alpha * (paint - image)


def field(rng: np.random.Generator, cells: int) -> Array:
    """Smooth variation of about unit variance with ``cells`` independent values a side."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (N, N), interpolation=cv2.INTER_CUBIC)


def grain(rng: np.random.Generator, size: float) -> Array:
    """Texture of unit variance and of correlation length ``size``."""
    noise = blur(rng.standard_normal((N, N), np.float32), size)
    return noise * (1 / float(noise.std()))


def blur(plane: Array, sigma: float) -> Array:
    """Gaussian blur."""
    return cv2.GaussianBlur(plane, (0, 0), sigma * ZOOM)


def relief(height: Array, light: tuple[float, float]) -> Array:
    """Slope of ``height`` (pixels) towards the lamp: positive where it is lit."""
    x, y = (cv2.Sobel(height, cv2.CV_32F, i, 1 - i, ksize=3, scale=ZOOM / 8) for i in (1, 0))
    return -light[0] * x - light[1] * y


def camera(rng: np.random.Generator) -> Callable[[Array], NDArray[np.uint8]]:
    """One exposure: lamp, lens and sensor drawn at random, noise included.

    It maps (3, N, N) to (SIDE, SIDE, 3) RGB.
    """
    gain = rng.uniform(0.78, 1.22)
    warm = rng.uniform(-0.04, 0.04)
    gamma = rng.uniform(0.88, 1.14)
    angle = rng.uniform(0, math.tau)
    tilt = rng.uniform(0, 0.25)
    fall = rng.uniform(0, 0.18)
    noise = rng.standard_normal((SIDE, SIDE, 3), np.float32) * rng.uniform(0.008, 0.018)
    x, y = (g[::ZOOM, ::ZOOM] * (2 / SIDE) for g in (X, Y))
    lit = gain * (1 + tilt * (x * math.cos(angle) + y * math.sin(angle)) - fall / 2 * (x * x + y * y))
    balance = np.array([1 + warm, 1, 1 - warm], np.float32)

    def expose(image: Array) -> NDArray[np.uint8]:
        small = cv2.resize(cv2.merge(list(image)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        seen = np.maximum(cv2.GaussianBlur(small, (0, 0), 0.45) * lit[..., None] * balance, 0) ** gamma
        return np.asarray(np.rint(np.clip(seen + noise * np.sqrt(0.4 + seen), 0, 1) * 255), np.uint8)

    return expose
