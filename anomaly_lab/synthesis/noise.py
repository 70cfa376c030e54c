"""Perlin's gradient noise as a pure function of (shape, lattice, rng)."""

from functools import lru_cache
from itertools import pairwise

import numpy as np


def perlin(shape: tuple[int, int], lattice: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 noise on a lattice of (rows, columns) cells: mean zero, within [-1, 1].

    Unit gradients at random angles, blended by the fade 6t^5 - 15t^4 + 10t^3 (Perlin 2002), times sqrt(2).
    The lattice need not divide the shape: pixel (y, x) lies at (y * rows / H, x * columns / W) in units of
    cells.
    """
    angle = rng.uniform(0, 2 * np.pi, (lattice[0] + 1, lattice[1] + 1))
    right = (np.sqrt(2) * np.cos(angle)).astype(np.float32)
    down = (np.sqrt(2) * np.sin(angle)).astype(np.float32)
    column, across = _axis(shape[1], lattice[1])
    # All blends are linear. Along x they are done on the lattice's lines only: at a distance y below a line
    # its part of the noise is lines[line, 0] + y * lines[line, 1]. Then each row of cells is one small matrix
    # product.
    lines = np.empty((lattice[0] + 1, 2, shape[1]), np.float32)
    lines[:, 0] = right[:, column] * across[1] + right[:, column + 1] * across[3]
    lines[:, 1] = down[:, column] * across[0] + down[:, column + 1] * across[2]
    row, along = _axis(shape[0], lattice[0])
    start = np.searchsorted(row, np.arange(lattice[0] + 1))
    noise = np.empty(shape, np.float32)
    for i, (first, last) in enumerate(pairwise(start)):
        np.matmul(along[:, first:last].T, lines[i : i + 2].reshape(4, -1), out=noise[first:last])
    return noise


@lru_cache(maxsize=64)
def _axis(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's cell and a (4, size) array of weights.

    They are weight and weight * offset of the cell's near end, then of its far one.
    """
    cell, rest = np.divmod(np.arange(size) * cells, size)
    t = rest / size
    far = t**3 * (6 * t**2 - 15 * t + 10)
    return cell, np.stack([1 - far, (1 - far) * t, far, far * (t - 1)]).astype(np.float32)
