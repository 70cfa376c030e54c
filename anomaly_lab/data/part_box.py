"""Find the part on a plain background, for ``data.crop=auto``; what is no such picture keeps its frame.

It is PRFF-AD's CropAndPad, whose boxes are unpublished. A box that cuts the part makes defects vanish whose
image still counts as anomalous, so that the box holds whatever differs from the background on any of the
normal training images, and where that cannot be told nothing is cropped.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.geometry import border_of
from anomaly_lab.data.images import Reading, read_image
from anomaly_lab.data.registration import onto

# A further image reaches beyond all of so many, on one of four sides, with a chance of 4 in 129.
DRAWN = 128
DRAWN_REGISTERED = 32  # which all lie alike, and each costs a registration
SIDE = 256  # pixels square, at which images are looked at
BLUR = 9  # pixels: noise falls to a ninth, an edge moves by 4 pixels at most
# A grey level of 255 by which the smoothed border is off its smooth background, in the median of its pixels.
# On plain backgrounds it was 0.9 to 3.0 (nuts on a cloth, a tyre in the dark, a chip on its board with
# tracks), on surfaces without one 8 and 11 (magnetic tiles, a weave).
PLAIN = 5.0
# So many times that is no noise: 5 medians of a normal deviation are 3.4 standard deviations, and what passes
# by chance is a speck.
NOISES = 5.0
LEAST = 6.0  # grey levels: below it compression and light differ, however little noise there is
SPECK = 0.002  # of the frame: the blur makes as much of a mote of dust of 1 % of the side
OFTEN = 0.05  # of the images: what stands out at one place in fewer is dust, or a shadow that fell there
MARGIN = 0.05  # of the longer side, around the part on each side
# Of the border, that at most stands out. What is seen along more of it may be the background, and what the
# border mostly shows a plain part: a corner of `SMALLEST` of both sides touches so much.
TOUCHING = 1 / 6
SMALLEST = 1 / 3  # of the frame's side: what is smaller is taken for a highlight or print, not for the part

FRAME = (0.0, 0.0, 1.0, 1.0)


class PartBox(NamedTuple):
    """Where the part lies, and what a log and a manifest say of it."""

    box: tuple[float, float, float, float]  # top, left, height, width as fractions of the photograph
    said: str


def part_box(files: Sequence[Path], reading: Reading, *, register: bool) -> PartBox:
    """Return what `find_part` finds on training images evenly drawn from ``files``.

    Each is registered onto the first one if asked for.
    """
    drawn = DRAWN_REGISTERED if register else DRAWN
    files = [files[row] for row in np.unique(np.linspace(0, len(files) - 1, drawn).astype(int))]
    # One after the other: together they may be more than the memory holds.
    photographs: Iterator[np.ndarray] = (read_image(file, reading) for file in files)
    if register:
        reference = read_image(files[0], reading)
        pairs = zip(photographs, files, strict=True)
        photographs = (onto(reference, photograph, None, file)[0] for photograph, file in pairs)
    return find_part(zip(files, photographs, strict=True))


def find_part(photographs: Iterable[tuple[Path | str, np.ndarray]]) -> PartBox:
    """Return the part's box, or the frame where there is no part on a plain background.

    What stands out of an image deviates from its background, fitted to its border, by more than noise. The
    box holds what does so in `OFTEN` of the images, and the largest such region of every image, with `MARGIN`
    around them, and is a square as far as the photograph has room.

    Args:
        photographs: names and (h, w, 3) uint8 training images of one view, gone through once.
    """
    often = np.zeros((SIDE, SIDE))
    held = np.zeros((SIDE, SIDE), bool)
    border = border_of((SIDE, SIDE))
    count = 0
    shape = (1, 1)
    for name, photograph in photographs:
        shape = photograph.shape[:2] if not count else shape
        deviation, noise = _deviation(photograph)
        if noise > PLAIN:
            return _frame(f"the border of {name} shows no plain background")
        regions = _regions(deviation > max(LEAST, NOISES * noise))
        if not regions:
            return _frame(f"nothing stands out from the background of {name}")
        standing_out = np.any(regions, axis=0)
        if standing_out[border].mean() > TOUCHING:
            return _frame(f"what stands out of {name} goes along too much of its border to tell the part")
        held |= max(regions, key=np.count_nonzero)
        often += standing_out
        count += 1
    for region in _regions(often >= OFTEN * count):
        held |= region
    rows, columns = (np.flatnonzero(held.any(axis=axis)) for axis in (1, 0))
    low = np.array([rows[0], columns[0]]) / SIDE
    high = np.array([rows[-1] + 1, columns[-1] + 1]) / SIDE
    if (high - low).max() < SMALLEST:
        extent = f"{(high - low).max():.0%} of the frame's side"
        return _frame(f"what stands out from the background spans only {extent}, too little for the part")
    box = _squared(low, high, np.array(shape))
    if box == FRAME:
        return _frame("what stands out from the background reaches the frame's edges")
    text = ", ".join(f"{share:.3f}" for share in box)
    return PartBox(box, f"data.crop=auto: [{text}] holds the part on {count} training images")


def _frame(why: str) -> PartBox:
    return PartBox(
        FRAME, f"data.crop=auto: nothing is cropped, as {why}; data.crop=[top,left,height,width] sets a box"
    )


def _squared(low: np.ndarray, high: np.ndarray, shape: np.ndarray) -> tuple[float, float, float, float]:
    """Return (top, left, height, width) with the margin, square as far as an (h, w) photograph has room.

    ``low`` and ``high`` are (top, left) and (bottom, right) as fractions of it.
    """
    extent = (high - low) * shape
    sides = np.minimum((1 + 2 * MARGIN) * extent.max(), shape)
    start = np.clip((low + high) / 2 * shape - sides / 2, 0, shape - sides)
    top, left, height, width = (float(value) for value in (*start / shape, *sides / shape))
    return top, left, height, width


def _deviation(photograph: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how far each place is off the background, and how far the border's places are in the median.

    The first is (SIDE, SIDE) float32, both are grey levels of 255.
    The background is a quadratic polynomial of the place in each channel, which follows light that falls off
    to one side or to the corners, fitted to the border's least deviating three quarters.
    """
    small = cv2.resize(photograph, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    smooth = cv2.blur(small.astype(np.float32), (BLUR, BLUR)).reshape(-1, 3)
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j])
    terms = np.stack([np.ones_like(x), y, x, y * y, x * x, x * y], axis=1).astype(np.float32)
    border = np.flatnonzero(border_of((SIDE, SIDE)))
    fitted = border
    for _ in range(4):
        weights = np.linalg.lstsq(terms[fitted], smooth[fitted], rcond=None)[0]
        off = np.abs(smooth[border] - terms[border] @ weights).max(axis=1)
        fitted = border[off <= np.quantile(off, 0.75)]
    deviation = np.abs(smooth - terms @ weights).max(axis=1).reshape(SIDE, SIDE)
    return deviation, float(np.median(off))


def _regions(standing_out: np.ndarray) -> list[np.ndarray]:
    """Return the 8-connected regions of an (H, W) bool array that are no specks, each (H, W) bool."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(standing_out.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return [labels == label for label in np.flatnonzero(areas >= SPECK * standing_out.size) + 1]
