"""Read images and masks as upright arrays; whatever is wrong with a file is one line that names it."""

import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from anomaly_lab.data.file_states import state_of
from anomaly_lab.data.left_out import SUFFIXES, is_no_file
from anomaly_lab.data.rare_images import is_wide, rare_values, refuse_odd, to_uint8
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
# PIL has a limit of its own that no key raises; `_opened` holds files to data.max_megapixels instead.
Image.MAX_IMAGE_PIXELS = None
MOST_CLASSES = 8  # greys of one mask that are taken for kinds of defect
WHITES = (255, 1023, 4095, 16383, 65535)  # of cameras of 8, 10, 12, 14 and 16 bits


class Reading(NamedTuple):
    """How the photographs of a data set are read; the values here are for a file by itself.

    Attributes:
        white: the value that becomes 255, in files of integers beyond 8 bits.
        max_megapixels: a file that declares more is refused.
    """

    white: int = 65535
    max_megapixels: float = 100.0

    def said(self, *, found: bool) -> str:
        """Return what a log says of the white, found on training images or given; nothing of 16 bits."""
        if self.white == WHITES[-1]:
            return ""
        how = ", found on the training images" if found else ""
        return f"data.white: {self.white} is white in files of more than 8 bits{how}"


ALONE = Reading()


def read_image(path: str | Path, reading: Reading = ALONE) -> np.ndarray:
    """Return an upright (H, W, 3) uint8 RGB image; brighter values than white are white.

    Raises:
        DataError: the file is missing, cut off, huge, no image, more than one, or has values beyond 16 bits.
    """
    return read_clipped(path, reading)[0]


def read_clipped(path: str | Path, reading: Reading) -> tuple[np.ndarray, bool]:
    """Return what `read_image` returns, and whether a value was brighter than white."""
    path = Path(path)
    with named(path):
        values = _decode(path, reading.max_megapixels)
        clipped = False
        if values.dtype != np.uint8:
            clipped = values.dtype.kind != "f" and bool(values.max() > reading.white)
            values = to_uint8(values, reading.white)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2), clipped


def white_of(files: Sequence[Path], max_megapixels: float) -> int:
    """Return the smallest of ``WHITES`` that holds every value of the files of integers beyond 8 bits.

    One value for all images, from training ones: by its own range a defect would change the brightness of
    everything around it. 65535 where no file is so wide; of those that are not, the header alone is read.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        largest = max(pool.map(lambda file: _largest(file, max_megapixels), files), default=-1)
    return next((white for white in WHITES if 0 <= largest <= white), WHITES[-1])


def _largest(path: Path, max_megapixels: float) -> int:
    with named(path):
        return _largest_read(path, max_megapixels, state_of(path))


@lru_cache(maxsize=2**17)
def _largest_read(path: Path, max_megapixels: float, *_: object) -> int:
    with _opened(path, path, max_megapixels) as image:
        wide = is_wide(image)
    values = _decode(path, max_megapixels) if wide else None
    return -1 if values is None or values.dtype.kind == "f" else int(values.max())


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W) bool mask of its image's ``size``.

    Numbers of classes, each above 0, are True: where no value reaches 32 (0/1, VisA's 0, 1, 2, ...), and in
    a lossless file with a pixel of 0 and at most 8 other values, as annotation tools draw kinds of defect in
    greys or colours. Else True is at least half of the file's maximum: that serves soft and lossy edges, and
    shares of 0 to 1. A file of black alone that is transparent in places has drawn in its opacity, which is
    taken instead. Of a folder of masks, one for each defect (MVTec LOCO), it is the union.

    Raises:
        DataError: the mask has another size, has values that are no numbers, or cannot be read.
    """
    if files := masks_of(path):
        return sum((read_mask(file, size) for file in files), np.zeros(size, bool))  # of bools + is or
    with named(path):
        most = max(ALONE.max_megapixels, size[0] * size[1] / 1e6)
        values = _decode(path, most)
        values = values if values.any() else _opacity(path, most, values)
        if values.shape[:2] != size:
            raise ValueError(f"the mask has (height, width) {values.shape[:2]} but its image {size}")
        if not np.isfinite(values).all():
            raise ValueError("the mask has values that are no numbers")
        lossy = _is_lossy(path)
    values = values if values.ndim == 2 else values.max(axis=2)
    return _anomalous(values, lossy=lossy)


def masks_of(path: Path) -> list[Path]:
    """Return the masks of one image in their folder, by name; none of a path that is no such folder."""
    found = (p for p in path.glob("[!.]*") if p.suffix.lower() in SUFFIXES and not is_no_file(p))
    return sorted(found)


def _anomalous(values: np.ndarray, *, lossy: bool) -> np.ndarray:
    marked: np.ndarray = values > 0
    half: np.ndarray = marked & (values >= values.max() / 2)
    if np.array_equal(marked, half):
        return marked
    # Taking a soft edge for a class widens a mask by less than a pixel; the other mistake loses a defect.
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return half
    few = not lossy and not marked.all() and len(np.unique(values[marked])) <= MOST_CLASSES
    return marked if few or values.max() < 32 else half


def _is_lossy(path: Path) -> bool:
    """Say whether a file's values are not those that were drawn; a WebP's may be."""
    with Image.open(path) as image:
        return image.format in ("JPEG", "MPO", "WEBP") or "jpeg" in str(image.info.get("compression"))


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


def _opened(path: Path, file: Path | BytesIO, max_megapixels: float) -> ImageFile:
    """Return an image whose header is read. ValueError: it is none, too large, or one of several."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"no PNG, JPEG, BMP, TIFF or WebP image ({path.stat().st_size} bytes)") from error
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        size = f"it declares {image.width} x {image.height} pixels"
        way_out = f"if it really has them, give data.max_megapixels={math.ceil(megapixels)}"
        raise ValueError(f"{size}, above data.max_megapixels={max_megapixels:g}; {way_out}")
    refuse_odd(image)
    return image


def _decode(path: Path, max_megapixels: float) -> np.ndarray:
    """Return the upright values, (H, W) or (H, W, 3); uint8, or wider where the file is."""
    data = path.read_bytes()
    image = _opened(path, BytesIO(data), max_megapixels)
    return _upright(np.array(image) if _plain(image) else rare_values(image, data), image)


def _opacity(path: Path, max_megapixels: float, values: np.ndarray) -> np.ndarray:
    """Return the upright opacity, (H, W) uint8; the values where it is the same everywhere."""
    with _opened(path, path, max_megapixels) as image:
        if not image.has_transparency_data:
            return values
        opacity = _upright(np.array(image.convert("RGBA").getchannel("A")), image)
    return opacity if opacity.min() < opacity.max() else values


def _upright(values: np.ndarray, image: ImageFile) -> np.ndarray:
    turn = image.getexif().get(0x0112, 1)  # EXIF orientation
    values = values.swapaxes(0, 1) if turn in (5, 6, 7, 8) else values
    values = values[::-1] if turn in (3, 4, 7, 8) else values
    return np.ascontiguousarray(values[:, ::-1] if turn in (2, 3, 6, 7) else values)


def _plain(image: ImageFile) -> bool:
    """Say whether the file holds 8 bit grey or RGB without transparency."""
    return image.mode in {"L", "RGB"} and not image.has_transparency_data and not is_wide(image)
