"""Read images and masks as upright arrays; whatever is wrong with a file is one line that names it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from anomaly_lab.data.rare_images import rare_values, to_uint8
from anomaly_lab.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Bytes that a pixel takes at most, in all copies that live at once until the image is resized; measured.
PLAIN_BYTES = 16
RARE_BYTES = 64

# Blocks above 32 MiB the C library maps by themselves, and gives back at once. Smaller ones stay with the
# thread that used them: a whole photograph for each thread.
Image.core.set_block_size(2**26)  # type: ignore[attr-defined] # documented, but not in the stub

# PIL warns of odd metadata in good files. Filtered once for all: catch_warnings is not safe in a thread pool.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: str | Path) -> np.ndarray:
    """Return an upright (H, W, 3) uint8 RGB image.

    Raises:
        DataError: the file is missing, cut off, huge, no image, or has values beyond its range.
    """
    path = Path(path)
    with named(path):
        values = _decode(path)
        if values.dtype != np.uint8:
            values = to_uint8(values)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W) bool mask of its image's ``size``.

    True is at least half of the file's maximum. That serves 0/255, any grey, soft and lossy edges. Where no
    value reaches 32 they are classes (0/1, VisA's 0, 1, 2, ...), and each above 0 is True. Of a folder of
    masks, one for each defect (MVTec LOCO), it is the union.

    Raises:
        DataError: the mask has another size, or cannot be read.
    """
    if files := sorted(path.glob("[!.]*")):
        return sum((read_mask(file, size) for file in files), np.zeros(size, bool))  # of bools + is or
    with named(path):
        values = _decode(path)
        if values.shape[:2] != size:
            raise ValueError(f"the mask has (height, width) {values.shape[:2]} but its image {size}")
    values = values if values.ndim == 2 else values.max(axis=2)
    return values > 0 if values.max() < 32 else values >= values.max() / 2


def memory_needed(path: Path) -> int:
    """Return how many bytes it takes at most to read an image and resize it, from what its file declares.

    It is 0 for what `read_image` will refuse.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height * (PLAIN_BYTES if _plain(image) else RARE_BYTES)
    except Exception:  # PIL raises much besides OSError; `read_image` will say what is wrong
        return 0


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn any error into one line with the file's path: PIL's plugins raise much besides OSError."""
    try:
        yield
    except Exception as error:
        reason = (
            (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or repr(error)
        )
        raise DataError(f"{path}: {reason}; replace the file or take it out of the data set") from error


def _decode(path: Path) -> np.ndarray:
    """Return the upright values, (H, W) or (H, W, 3); uint8, or wider where the file is."""
    data = path.read_bytes()
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"no PNG, JPEG, BMP, TIFF or WebP image ({len(data)} bytes)") from error
    if image.width * image.height > 100_000_000:
        raise ValueError(f"it declares {image.width} x {image.height} pixels, above 100 megapixels")
    values = np.array(image) if _plain(image) else rare_values(image, data)
    turn = image.getexif().get(0x0112, 1)  # EXIF orientation
    values = values.swapaxes(0, 1) if turn in (5, 6, 7, 8) else values
    values = values[::-1] if turn in (3, 4, 7, 8) else values
    return np.ascontiguousarray(values[:, ::-1] if turn in (2, 3, 6, 7) else values)


def _plain(image: ImageFile) -> bool:
    """Say whether the file holds 8 bit grey or RGB without transparency."""
    wide = ";16" in str(image.tile[:1])
    return image.mode in {"L", "RGB"} and not image.has_transparency_data and not wide
