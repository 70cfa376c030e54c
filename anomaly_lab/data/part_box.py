"""Find the part on a plain background, for ``data.crop=auto``.

It is PRFF-AD's CropAndPad, whose boxes are unpublished.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from anomaly_lab.data.images import Reading, read_image
from anomaly_lab.data.registration import onto
from anomaly_lab.errors import DataError

FEW = 32  # photographs show well enough where the part lies


def part_box(files: Sequence[Path], reading: Reading, *, register: bool) -> tuple[float, float, float, float]:
    """Return what `find_part` finds in training images evenly drawn from ``files``.

    Each is registered if asked for.
    """
    files = files[:: max(1, len(files) // FEW)]
    # One after the other: together they may be more than the memory holds.
    photographs: Iterable[np.ndarray] = (read_image(file, reading) for file in files)
    if register:
        reference = read_image(files[0], reading)
        pairs = zip(photographs, files, strict=True)
        photographs = (onto(reference, photograph, None, file)[0] for photograph, file in pairs)
    return find_part(photographs, len(files))


def find_part(images: Iterable[np.ndarray], count: int) -> tuple[float, float, float, float]:
    """Return the part's (top, left, height, width) as fractions.

    The part is the largest 8-connected component above Otsu's threshold of the images' mean difference to
    their background. Its box grows by 5 % on each side, then to a square as far as the image has room.

    Args:
        images: (h, w, 3) uint8 training images of one view, gone through once.
        count: of the images.

    Raises:
        DataError: there is no part.
    """
    following = iter(images)
    first = next(following)
    height, width = first.shape[:2]
    mean = np.zeros((height, width), np.float32)
    for image in chain([first], following):
        mean += cv2.resize(_difference(image), (width, height), interpolation=cv2.INTER_AREA) / count
    # Without the blur Otsu parts mere noise by up to 25 grey levels.
    reach = 1 + 2 * (min(height, width) // 64)
    mean = np.asarray(cv2.blur(mean, (reach, reach)))
    _, above = cv2.threshold(np.rint(mean).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    largest = int(stats[1:, cv2.CC_STAT_AREA].argmax()) + 1 if len(stats) > 1 else 0
    inside = labels == largest
    if not 0.01 < inside.mean() < 1 or mean[inside].mean() - mean[~inside].mean() < 6:
        raise DataError(
            "data.crop=auto: nothing stands out from the training images' background; set data.crop=null"
        )
    box = stats[largest].astype(float)  # left, top, width, height, area
    side = 1.1 * max(box[2], box[3])
    rows = min(side, height)
    columns = min(side, width)
    top = np.clip(box[1] + (box[3] - rows) / 2, 0, height - rows)
    left = np.clip(box[0] + (box[2] - columns) / 2, 0, width - columns)
    return float(top / height), float(left / width), float(rows / height), float(columns / width)


def _difference(image: np.ndarray) -> np.ndarray:
    """Return each pixel's largest difference to the background, (h, w) float32.

    The background is the median of the border ring.
    """
    ring = max(1, min(image.shape[:2]) // 32)
    inner = np.zeros(image.shape[:2], bool)
    inner[ring:-ring, ring:-ring] = True
    background = np.median(image[~inner], axis=0).astype(np.float32)
    difference: np.ndarray = np.abs(image - background).max(axis=2)
    return difference
