"""Where a photograph lies in the network's image, and the way there and back.

Nothing else resizes an input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.geometry import Resize, resized

SMALLEST_SIDE = 8  # of an image, in pixels; below it there is nothing to see
MOST_PIXELS = 2**26  # of a network's image: 8192 x 8192, 0.8 GB as float32
BORDER = 1 / 32  # of the shorter side: so wide is the border that shows the background

MaskResize = Literal["nearest", "floor"]


class Box(NamedTuple):
    """Whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """``array[box.slices]`` is the content."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Placement(NamedTuple):
    """``source`` of the original, resized, fills ``target`` of the network's image; around it is padding."""

    source: Box
    target: Box


def sides_of(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width. ConfigError: they are not two, or of a size that no network's image has."""
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < SMALLEST_SIDE or sides[0] * sides[1] > MOST_PIXELS:
        way_out = f"give one side or [height, width], at least {SMALLEST_SIDE}, and at most 2^26 pixels"
        raise ConfigError(f"data.image_size: {image_size}; {way_out}")
    return sides


@final
@dataclass(frozen=True)
class Geometry:
    """Crop the fractions (top, left, height, width), resize to (H, W), keep the central square."""

    image_size: tuple[int, int]
    # Both pads keep the aspect and centre, in black or in the median colour of the photograph's border.
    fit: Literal["stretch", "pad", "pad_background"]
    center_crop: int | None
    crop: tuple[float, ...] | None
    resize: Resize

    def __post_init__(self) -> None:
        if not 1 <= min(self.size) <= min(self.image_size):
            raise ConfigError(
                f"data.center_crop={self.center_crop} must lie in 1 to data.image_size={self.image_size}"
            )
        crop = np.array(self.crop or (0, 0, 1, 1))
        if (
            crop.shape != (4,)
            or crop[:2].min() < 0
            or crop[2:].min() <= 0
            or (crop[:2] + crop[2:]).max() > 1 + 1e-9
        ):
            raise ConfigError(
                f"data.crop={self.crop}: give top, left, height, width as fractions inside the image"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the network's image."""
        return self.image_size if self.center_crop is None else (self.center_crop, self.center_crop)

    def place(self, original: tuple[int, int]) -> Placement:
        """Collapse all steps, for an (H, W) original, to one box in either image.

        Rows and columns are computed at once.
        """
        crop, canvas, window = (
            np.array(pair) for pair in (self.crop or (0, 0, 1, 1), self.image_size, self.size)
        )
        start = np.minimum(np.rint(crop[:2] * original), np.array(original) - 1)
        length = np.maximum(np.rint((crop[:2] + crop[2:]) * original) - start, 1)
        scale = canvas / length
        resized = np.maximum(np.rint(length * (scale if self.fit == "stretch" else scale.min())), 1)
        offset = (canvas - resized) // 2 - (canvas - window) // 2  # of the resized image in the network's
        low = np.maximum(offset, 0)
        high = np.minimum(offset + resized, window)
        begin = np.rint((low - offset) * length / resized)
        end = np.maximum(np.rint((high - offset) * length / resized), begin + 1)
        source = (*(start + begin), *(end - begin))
        target = (*low, *(high - low))
        return Placement(Box(*map(int, source)), Box(*map(int, target)))


def border_of(size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W) bool array, True on the border of `BORDER` of the shorter side, at least a pixel."""
    ring = max(1, int(min(size) * BORDER))
    border = np.ones(size, bool)
    border[ring:-ring, ring:-ring] = False
    return border


def resize_image(image: np.ndarray, placement: Placement, geometry: Geometry) -> np.ndarray:
    """Place an (h, w, 3) uint8 image in an (H, W, 3) uint8 one, by the geometry's ``resize`` and ``fit``."""
    size = geometry.size
    if placement.source == placement.target == (0, 0, *size):
        return image[placement.source.slices].copy()
    placed = np.zeros((*size, 3), np.uint8)
    if geometry.fit == "pad_background" and placement.target != (0, 0, *size):
        placed[:] = np.rint(np.median(image[border_of(image.shape[:2])], axis=0))
    seen = image[placement.source.slices]
    placed[placement.target.slices] = resized(seen, placement.target[2:], geometry.resize)
    return placed


def resize_mask(
    mask: np.ndarray, placement: Placement, size: tuple[int, int], resize: MaskResize = "nearest"
) -> np.ndarray:
    """Place an (h, w) bool mask in an (H, W) bool one.

    ``nearest`` takes the pixel whose centre is nearest. ``floor`` is DRAEM's evaluation (data_loader.py and
    test_DRAEM.py of VitjanZ/DRAEM): cv2's bilinear resizing of 0 and 255, and whatever is below 255 in the
    end is normal.
    """
    placed = np.zeros(size, bool)
    seen = mask[placement.source.slices]
    target = placement.target[2:]
    if resize == "floor":
        soft = cv2.resize(seen.astype(np.uint8) * 255, target[::-1], interpolation=cv2.INTER_LINEAR)
        placed[placement.target.slices] = soft == 255
    else:
        placed[placement.target.slices] = _nearest(seen.astype(np.uint8), target)
    return placed


class Lost(NamedTuple):
    """What of a mask does not reach the network."""

    cut: float  # share of the marked pixels that a crop cuts away
    seen: int  # 8-connected regions inside the crop
    regions: int  # so many of these have no pixel at the network's size


def lost_of(mask: np.ndarray, placement: Placement) -> Lost:
    """Return what `resize_mask`, by the nearest pixel, loses of an (h, w) bool mask."""
    marked = np.count_nonzero(mask)
    if not marked:
        return Lost(0.0, 0, 0)
    seen = mask[placement.source.slices]
    count, labels = cv2.connectedComponents(seen.astype(np.uint8), connectivity=8)
    left = np.unique(_nearest(labels.astype(np.float64), placement.target[2:]))
    cut = (marked - np.count_nonzero(seen)) / marked
    return Lost(float(cut), count - 1, count - 1 - int(np.count_nonzero(left)))


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (h, w) values as (H, W), each that of the nearest pixel centre."""
    tensor = torch.from_numpy(values)[None, None]
    return interpolate(tensor, size, mode="nearest-exact")[0, 0].numpy()


def restore_map(anomaly_map: np.ndarray, placement: Placement) -> np.ndarray:
    """Bring an (H, W) float32 map back to the original's pixels, bilinear.

    It becomes (source.height, source.width) float32.
    """
    seen = torch.from_numpy(anomaly_map[placement.target.slices].astype(np.float32))[None, None]
    return interpolate(seen, placement.source[2:], mode="bilinear", antialias=True)[0, 0].numpy()
