"""Bring a rigid part onto a reference image: rotation and shift.

CPCAE-kNN sees registered images (docs/methods/cpcae_knn.md, note 8).

ECC (Evangelidis, Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization",
IEEE TPAMI 30(10), 2008) climbs to the nearest maximum alone; a search over all rotations, with Fourier
correlation for the shift, gives its start.
"""

import logging
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy import fft

from anomaly_lab.data.decoding import Split, decode
from anomaly_lab.data.geometry import Geometry
from anomaly_lab.data.images import Reading
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

log = logging.getLogger(__name__)
LEVELS = (64, 128, 256)  # longer side, in pixels, at which the images are aligned; the search is at the first
ROTATIONS = 36  # of the search; to refine several of its maxima found nothing better on any image tried
UNTIL = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-5)
LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP


def decode_registered(
    records: list[ImageRecord],
    geometry: Geometry,
    reading: Reading,
    memory_gb: float,
    reference: np.ndarray,
) -> Split:
    """Decode as `decode` does, each photograph first turned and shifted onto an (h, w, 3) uint8 reference."""
    stuck: list[Path] = []

    def moving(
        image: np.ndarray, mask: np.ndarray | None, file: Path
    ) -> tuple[np.ndarray, np.ndarray | None]:
        image, mask, moved = onto(reference, image, mask, file)
        stuck.extend([] if moved else [file])
        return image, mask

    split = decode(records, geometry, reading, memory_gb, moving)
    if stuck:
        text = (
            "data.register: %d of %d photographs could not be registered and stay as they are, among them %s"
        )
        log.warning(text, len(stuck), len(records), min(stuck))
    return split


def onto(
    reference: np.ndarray, image: np.ndarray, mask: np.ndarray | None, file: Path | str
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return an (h, w, 3) uint8 photograph and its (h, w) bool mask, moved onto a reference.

    The third value says whether they were moved. What the photograph does not show after it was moved is
    taken from the reference, so that no edge stands out there.

    Raises:
        DataError: the photographs have different sizes.
    """
    if image.shape != reference.shape:
        sizes = f"(height, width) {image.shape[:2]}, but the first training image {reference.shape[:2]}"
        raise DataError(
            f"{file}: has {sizes}; data.register=true wants photographs of one size: take the odd one out"
        )
    matrix = register(image, reference)
    if np.array_equal(matrix, np.eye(2, 3)):
        return image, mask, np.array_equal(image, reference)
    shown = warped_mask(np.ones(image.shape[:2], bool), matrix)
    moved = np.where(shown[..., None], warped(image, matrix), reference)
    return moved, None if mask is None else warped_mask(mask, matrix), True


def register(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the (2, 3) float64 matrix that brings ``image`` onto ``reference``.

    Both are (H, W, 3) uint8 of one size. The matrix takes the reference's (x, y, 1) to the image's (x, y), as
    cv2.warpAffine wants it with WARP_INVERSE_MAP. Any angle is found, and a shift up to a third of the image,
    if the part differs from its background and is not symmetric. Where ECC does not converge, or correlates
    no better than no motion, it is the identity: an image that cannot be registered stays as it is, and is
    then scored as it is.
    """
    side = max(reference.shape)
    lengths = sorted({min(length, side) for length in LEVELS})
    moving, fixed = (
        cv2.cvtColor(array, cv2.COLOR_RGB2GRAY).astype(np.float32) for array in (image, reference)
    )
    pyramid = [(_shrunk(moving, length / side), _shrunk(fixed, length / side)) for length in lengths]
    best = _refined(*pyramid[0], _start(*pyramid[0]))
    for (below, length), level in zip(pairwise(lengths), pyramid[1:], strict=True):
        best = None if best is None else _refined(*level, _scaled(best, length / below))
    rest = np.eye(2, 3)
    if best is None or _correlation(*pyramid[-1], best) <= _correlation(*pyramid[-1], rest):
        return rest
    return _scaled(best, side / lengths[-1])


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the moved (H, W, 3) uint8 image, bilinear; what lies outside repeats the edge."""
    size = image.shape[1::-1]
    moved: np.ndarray = cv2.warpAffine(image, matrix, size, flags=LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved


def warped_mask(mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the moved (H, W) bool mask, by the nearest pixel; False outside."""
    moved: np.ndarray = cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=NEAREST) > 0
    return moved


def _shrunk(grey: np.ndarray, scale: float) -> np.ndarray:
    # By factors, not to a size: both axes get the same scale to the last digit, and a rotation stays one.
    return grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _scaled(matrix: np.ndarray, scale: float) -> np.ndarray:
    """Return the same motion for images ``scale`` times as large.

    Pixel i has its centre at i + 1/2 of the plane.
    """
    linear = matrix[:, :2]
    half = np.full(2, 0.5)
    return np.column_stack([linear, scale * (matrix[:, 2] + half - linear @ half) - half + linear @ half])


def _start(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return the matrix of the rotation and shift that correlate most, the background taken for zero."""
    height, width = fixed.shape
    side = 2 * max(height, width)  # any rotation fits in, and no shift of the part wraps around
    centre = np.array([width - 1, height - 1]) / 2
    middle = np.full(2, side // 2)
    turns = [cv2.Rodrigues(np.array([0, 0, 2 * np.pi * i / ROTATIONS]))[0][:2, :2] for i in range(ROTATIONS)]
    plain = [
        grey - np.median(np.concatenate([grey[[0, -1]].T, grey[:, [0, -1]]])) for grey in (moving, fixed)
    ]
    matrices = [np.column_stack([turn, centre - turn @ middle]) for turn in turns]
    turned = np.stack([cv2.warpAffine(plain[0], matrix, (side, side), flags=LINEAR) for matrix in matrices])
    spectrum = fft.rfft2(turned) * np.conj(fft.rfft2(plain[1], (side, side)))
    best = int(fft.irfft2(spectrum, (side, side)).argmax())
    rotation = best // side**2
    y = best // side % side
    x = best % side
    start: np.ndarray = matrices[rotation] @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    return start


def _refined(moving: np.ndarray, fixed: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """Return the matrix that ECC reaches from ``start``; None if it does not converge."""
    # ECC sees the image after ``start`` and begins at rest: its Euclidean update knows angles below 90
    # degrees alone.
    size = fixed.shape[::-1]
    near = cv2.warpAffine(moving, start, size, flags=LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.warpAffine(np.ones(moving.shape, np.uint8), start, size, flags=NEAREST)
    rest = np.eye(2, 3, dtype=np.float32)
    try:
        _, step = cv2.findTransformECC(fixed, near, rest, cv2.MOTION_EUCLIDEAN, UNTIL, seen, 5)
    except cv2.error:
        return None
    return start @ np.vstack([step, [0.0, 0.0, 1.0]]) if np.isfinite(step).all() else None


def _correlation(moving: np.ndarray, fixed: np.ndarray, matrix: np.ndarray) -> float:
    """Return Pearson's coefficient of the moved image and the fixed one; 0 if one of them is constant."""
    near = warped(moving, matrix)
    one = near - near.mean()
    other = fixed - fixed.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm else 0.0
