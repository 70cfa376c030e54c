"""Natural synthetic anomalies: patches of normal images, blended in by Poisson's equation."""

from collections.abc import Sequence
from typing import Literal, final

import cv2
import numpy as np

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import Window, random_window

CLONES = {"normal": cv2.NORMAL_CLONE, "mixed": cv2.MIXED_CLONE}
# To find a place that shows enough of the part, the authors' number; after them there is no patch.
ATTEMPTS = 200
SMALLEST = 9  # pixels a side: OpenCV leaves four at each edge as they are, and raises below five
Patch = tuple[np.ndarray, np.ndarray]  # (h, w, 3) uint8, and where it shows the part, (h, w) uint8 of 0 and 1


@final
class Nsa(Synthesizer):
    """Schlüter, Tan, Hou, Kainz, ECCV 2022, and the authors' code; the yaml explains each argument.

    What the mask leaves out is put back: it holds every pixel that changed, and no other. It may be empty.
    The source is drawn from all training images, among them the one to be changed (the code: the image that
    was loaded before).
    """

    source = "the training images"

    def __init__(  # noqa: PLR0913 - hyperparameters
        self,
        *,
        probability: float,
        num_patches: int,
        half_height: Sequence[float],
        half_width: Sequence[float],
        gamma_shape: float,
        gamma_scale: float,
        gamma_offset: float,
        resize: Sequence[float],
        resize_deviation: float,
        clone: Literal["normal", "mixed"],
        background: Sequence[float] | None,
        min_object: float,
        min_overlap: float,
        tolerance: float,
        median: int,
    ) -> None:
        self.probability = probability
        self.num_patches = num_patches
        self.clone = CLONES[clone]
        self.half_height = half_height
        self.half_width = half_width
        self.resize = resize
        self.gamma_shape = gamma_shape
        self.gamma_scale = gamma_scale
        self.gamma_offset = gamma_offset
        self.resize_deviation = resize_deviation
        self.background = background
        self.tolerance = tolerance
        self.min_object = min_object
        self.min_overlap = min_overlap
        self.median = median
        ends_in = {"half_height": (half_height, 0.5), "half_width": (half_width, 0.5), "resize": (resize, 10)}
        for name, (ends, most) in ends_in.items():
            if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= most:
                raise ConfigError(
                    f"synthesis.{name}: {list(ends)} is no range within 0 to {most}; give [low, high]"
                )
        wanted = {
            "probability": (0 <= probability <= 1, "a number in [0, 1]"),
            "num_patches": (num_patches >= 1, "at least 1"),
            "gamma_shape": (gamma_shape > 0, "more than 0"),
            "gamma_scale": (gamma_scale > 0, "more than 0"),
            "resize_deviation": (resize_deviation >= 0, "0 or more"),
            "background": (background is None or len(background) == 2, "[brightness, threshold], or null"),
            "min_object": (0 <= min_object < 1, "a number in [0, 1)"),
            "min_overlap": (0 <= min_overlap < 1, "a number in [0, 1)"),
            "tolerance": (tolerance >= 0, "0 or more"),
            "median": (median > 0 and median % 2 == 1, "an odd number"),
        }
        for name, wish in ((name, wish) for name, (fits, wish) in wanted.items() if not fits):
            raise ConfigError(f"synthesis.{name}: this value does not fit; give {wish}")

    def setup(self, normals: Sequence[np.ndarray]) -> None:
        """Keep the images themselves, not copies: forked workers share them."""
        self.normals = normals

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W, 3) uint8 image, itself if it stays clean, and its (H, W) bool mask."""
        if rng.random() >= self.probability:
            return image, np.zeros(image.shape[:2], bool)
        source = self.normals[int(rng.integers(len(self.normals)))]
        part_of_source = self._part(source)
        part = self._part(image)
        result = image.copy()
        blended = np.zeros(image.shape[:2], bool)
        for number in range(self.num_patches):
            if number == 0 or rng.random() < 0.5:
                patch = self._cut(source, part_of_source, rng)
                window = patch and self._place(patch, part, rng)
                if patch and window:
                    result[window] = poisson_blend(patch[0], result[window], self.clone)
                    blended[window] |= (patch[1] | part[window]) > 0
        change = cv2.absdiff(result, image).astype(np.float32) @ np.ones(3, np.float32)
        label = cv2.medianBlur((blended & (change > 3 * self.tolerance)).view(np.uint8), self.median)
        mask = (label > 0) & (change > 0)
        return cv2.copyTo(result, mask.view(np.uint8), image.copy()), mask

    def _part(self, image: np.ndarray) -> np.ndarray:
        """Return where the part is, (H, W) uint8 of 0 and 1: everywhere, if no background is given."""
        if self.background is None:
            return np.ones(image.shape[:2], np.uint8)
        brightness = image.astype(np.float32) @ np.full(3, 1 / 3, np.float32)
        away = np.abs(brightness - self.background[0]) > self.background[1]
        return np.asarray(cv2.medianBlur(away.view(np.uint8), 7))

    def _cut(self, source: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> Patch | None:
        """Return a resized patch of a place that shows enough of the part."""
        sides = np.array(part.shape)
        ends = sides * np.transpose([self.half_height, self.half_width])
        low, high = np.maximum(1, np.rint(ends)).astype(int)
        drawn = (self.gamma_offset + rng.gamma(self.gamma_shape, self.gamma_scale, 2)) * sides
        half = np.clip(drawn, low, high).astype(int)
        for _ in range(ATTEMPTS):
            centre = rng.integers(low, np.maximum(low + 1, sides - low))
            top, left = np.maximum(centre - half, 0)
            bottom, right = np.minimum(centre + half, sides)
            cut = np.s_[top:bottom, left:right]
            if part[cut].mean() > self.min_object:
                factor = float(np.clip(rng.normal(1, self.resize_deviation), self.resize[0], self.resize[1]))
                size = resized(part[cut].shape, factor, low, high)
                return (
                    (cv2.resize(source[cut], size), cv2.resize(part[cut], size))
                    if min(size) >= SMALLEST
                    else None
                )
        return None

    def _place(self, patch: Patch, part: np.ndarray, rng: np.random.Generator) -> Window | None:
        """Return a window of the image where enough of the patch's part lies on the image's part."""
        shown = patch[1]
        if shown.mean() <= self.min_object:
            return None
        windows = (random_window(shown.shape, part.shape, rng) for _ in range(ATTEMPTS))
        return next((w for w in windows if (shown & part[w]).sum() > self.min_overlap * shown.sum()), None)


def resized(shape: tuple[int, ...], factor: float, low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
    """Return (width, height), OpenCV's order.

    The bounds of half sides hold for whole ones here, as in the code.
    """
    height = np.clip(factor * shape[0], low[0], high[0])
    width = int(np.clip(int(height / shape[0] * shape[1]), low[1], high[1]))
    return width, int(np.clip(int(width / shape[1] * shape[0]), low[0], high[0]))


def poisson_blend(patch: np.ndarray, window: np.ndarray, clone: int) -> np.ndarray:
    """Return the window, (h, w, 3) uint8, with the patch of its size blended in.

    Its two outermost rings stay. The gradients are the patch's but for the four outermost rings, where they
    are the window's: OpenCV erodes the mask. Given only the window, it can neither leave the image nor shift
    the patch; it centres what is not zero.
    """
    inner = np.zeros(window.shape[:2], np.uint8)
    inner[1:-1, 1:-1] = 255
    centre = (window.shape[1] // 2, window.shape[0] // 2)
    return np.asarray(cv2.seamlessClone(patch, np.ascontiguousarray(window), inner, centre, clone))
