"""From a coarse anomaly map to one of the image's size."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

MOST_COPIES = 16  # of a column, to each side of it, that a kernel takes in


Aligned = Literal["edges", "corners"]
Upsampling = Literal["bilinear", "bicubic"]
SHARPNESS = -0.75  # of the cubic kernel, as PyTorch and OpenCV have it (Keys, 1981, has -0.5)


def enlarged(
    coarse: Tensor,
    size: tuple[int, int],
    sigma: float,
    aligned: Aligned = "edges",
    upsampling: Upsampling = "bilinear",
) -> Tensor:
    """Return (B, h, w) maps at (B, H, W), then smoothed by a Gaussian of ``sigma`` pixels; float32.

    Both grids share their edges, or the centres of their ``corners`` (what PyTorch calls align_corners).
    A ``bicubic`` map overshoots beside an edge; it may fall below the smallest of the coarse values.

    The edges are mirrored as `scipy.ndimage.gaussian_filter` does by default, which the papers' code calls.
    Both steps are linear along each axis, so one matrix an axis does them. With ``sigma`` 0 nothing is
    smoothed.
    """
    rows, columns = (
        # A copy to a GPU that blocks waits for all that is computed there.
        torch.from_numpy(_matrix(short, long, sigma, aligned, upsampling)).to(
            coarse.device, non_blocking=coarse.is_cuda
        )
        for short, long in zip(coarse.shape[1:], size, strict=True)
    )
    with torch.autocast(coarse.device.type, enabled=False):
        return rows @ coarse.float() @ columns.T


@lru_cache(maxsize=8)
def _matrix(short: int, long: int, sigma: float, aligned: Aligned, upsampling: Upsampling) -> np.ndarray:
    """Return what enlarges and smooths a column: (long, short) float32.

    It is made without torch, whose export knows no numbers while it traces.
    """
    place = np.arange(long)
    if aligned == "corners":
        at = place * ((short - 1) / max(long - 1, 1))
    else:
        at = (place + 0.5) * (short / long) - 0.5
    columns = np.zeros((long, short))
    if upsampling == "bilinear":
        at = np.clip(at, 0, None)
        before = np.minimum(at.astype(int), short - 1)
        np.add.at(columns, (place, before), 1 - (at - before))
        np.add.at(columns, (place, np.minimum(before + 1, short - 1)), at - before)
    else:
        before = np.floor(at).astype(int)
        for step in range(-1, 3):  # edges repeated
            near = np.clip(before + step, 0, short - 1)
            np.add.at(columns, (place, near), _cubic(np.abs(at - (before + step))))
    # SciPy cuts the kernel at 4 sigma; of one far wider than the column, mirrored copies are enough.
    radius = min(int(4 * sigma + 0.5), MOST_COPIES * long)
    smooth: np.ndarray = gaussian_filter1d(columns, sigma, axis=0, radius=radius) if sigma > 0 else columns
    return smooth.astype(np.float32)


def _cubic(away: np.ndarray) -> np.ndarray:
    """Return the weight of the cubic convolution kernel at distances of 0 to 2 (Keys, 1981, equation 4)."""
    a = SHARPNESS
    near = (a + 2) * away**3 - (a + 3) * away**2 + 1
    far = a * (away**3 - 5 * away**2 + 8 * away - 4)
    return np.where(away <= 1, near, far)
