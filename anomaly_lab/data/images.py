"""Read images and masks, and place them in the network's image; nothing else in the project resizes an input."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError, DataError

# PIL warns of odd metadata in good files. Filtered once for all: catch_warnings is not safe in a thread pool.
warnings.filterwarnings("ignore", module=r"PIL\.")


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
    """``source`` of the original, resized, fills ``target`` of the network's image, which is 0 around it."""

    source: Box
    target: Box


@final
@dataclass(frozen=True)
class Geometry:
    """Crop the fractions (top, left, height, width), resize to (H, W), keep the central square."""

    image_size: tuple[int, int]
    fit: Literal["stretch", "pad"]  # pad keeps the aspect and centres
    center_crop: int | None
    crop: tuple[float, ...] | None

    def __post_init__(self) -> None:
        if not 1 <= min(self.size) <= min(self.image_size):
            raise ConfigError(f"data.center_crop={self.center_crop} must lie in 1 to data.image_size={self.image_size}")
        crop = np.array(self.crop or (0, 0, 1, 1))
        if crop.shape != (4,) or crop[:2].min() < 0 or crop[2:].min() <= 0 or (crop[:2] + crop[2:]).max() > 1 + 1e-9:
            raise ConfigError(f"data.crop={self.crop}: give top, left, height, width as fractions inside the image")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the network's image."""
        return self.image_size if self.center_crop is None else (self.center_crop, self.center_crop)

    def place(self, original: tuple[int, int]) -> Placement:
        """Collapse all steps, for an (H, W) original, to one box in either image; rows and columns at once."""
        crop, canvas, window = (np.array(pair) for pair in (self.crop or (0, 0, 1, 1), self.image_size, self.size))
        start = np.minimum(np.rint(crop[:2] * original), np.array(original) - 1)
        length = np.maximum(np.rint((crop[:2] + crop[2:]) * original) - start, 1)
        scale = canvas / length
        resized = np.maximum(np.rint(length * (scale.min() if self.fit == "pad" else scale)), 1)
        offset = (canvas - resized) // 2 - (canvas - window) // 2  # of the resized image in the network's
        low, high = np.maximum(offset, 0), np.minimum(offset + resized, window)
        begin = np.rint((low - offset) * length / resized)
        end = np.maximum(np.rint((high - offset) * length / resized), begin + 1)
        source, target = (*(start + begin), *(end - begin)), (*low, *(high - low))
        return Placement(Box(*map(int, source)), Box(*map(int, target)))


def read_image(path: str | Path) -> np.ndarray:
    """Return an upright (H, W, 3) uint8 RGB image. DataError: missing, cut off, huge, no image, beyond its range."""
    path = Path(path)
    with named(path):
        values = _decode(path)
        if values.dtype != np.uint8:
            from anomaly_lab.data.rare_images import to_uint8  # noqa: PLC0415 - as below

            values = to_uint8(values)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W) bool mask of its image's ``size``, else DataError; True = at least half of the file's maximum.

    That serves 0/255, any grey, soft and lossy edges. Where no value reaches 32 they are classes (0/1, VisA's 0, 1,
    2, ...), and each above 0 is True. Of a folder of masks, one for each defect (MVTec LOCO), it is the union.
    """
    if files := sorted(path.glob("[!.]*")):
        return sum((read_mask(file, size) for file in files), np.zeros(size, bool))  # of bools + is or
    with named(path):
        values = _decode(path)
        if values.shape[:2] != size:
            raise ValueError(f"the mask has (height, width) {values.shape[:2]} but its image {size}")
    values = values if values.ndim == 2 else values.max(axis=2)
    return values > 0 if values.max() < 32 else values >= values.max() / 2


def resize_image(image: np.ndarray, placement: Placement, size: tuple[int, int]) -> np.ndarray:
    """Place an (h, w, 3) uint8 image in an (H, W, 3) uint8 one, as an exported graph can repeat it exactly."""
    if placement.source == placement.target == (0, 0, *size):
        return image[placement.source.slices].copy()
    pixels = torch.from_numpy(image[placement.source.slices].astype(np.float32)).permute(2, 0, 1)[None]
    resized = interpolate(pixels, placement.target[2:], mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    placed = np.zeros((*size, 3), np.uint8)
    placed[placement.target.slices] = resized.round().clamp(0, 255).numpy()
    return placed


def resize_mask(mask: np.ndarray, placement: Placement, size: tuple[int, int]) -> np.ndarray:
    """Place an (h, w) bool mask in an (H, W) bool one, by the nearest pixel centre."""
    pixels = torch.from_numpy(mask[placement.source.slices].astype(np.uint8))[None, None]
    placed = np.zeros(size, bool)
    placed[placement.target.slices] = interpolate(pixels, placement.target[2:], mode="nearest-exact")[0, 0].numpy()
    return placed


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn any error into one line with the file's path: PIL's plugins raise much besides OSError."""
    try:
        yield
    except Exception as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or repr(error)
        raise DataError(f"{path}: {reason}; replace the file or take it out of the data set") from error


def _decode(path: Path) -> np.ndarray:
    """Return the upright values, (H, W) or (H, W, 3); uint8, or wider where the file is."""
    data = path.read_bytes()
    try:
        image = Image.open(BytesIO(data), formats=("PNG", "JPEG", "BMP", "TIFF", "WEBP"))
    except UnidentifiedImageError as error:
        raise ValueError(f"no PNG, JPEG, BMP, TIFF or WebP image ({len(data)} bytes)") from error
    if image.width * image.height > 100_000_000:
        raise ValueError(f"it declares {image.width} x {image.height} pixels, above 100 megapixels")
    if image.mode in ("L", "RGB") and not image.has_transparency_data and ";16" not in str(image.tile[:1]):
        values = np.array(image)
    else:
        from anomaly_lab.data.rare_images import rare_values  # noqa: PLC0415 - few data sets need it

        values = rare_values(image, data)
    turn = image.getexif().get(0x0112, 1)  # EXIF orientation
    values = values.swapaxes(0, 1) if turn in (5, 6, 7, 8) else values
    values = values[::-1] if turn in (3, 4, 7, 8) else values
    return np.ascontiguousarray(values[:, ::-1] if turn in (2, 3, 6, 7) else values)
