"""Perlin noise by its definition."""

import numpy as np
import pytest

from anomaly_lab.synthesis.noise import perlin
from tests.support.synthesizers import perlin_by_loops, rng


@pytest.mark.parametrize(
    ("shape", "lattice"),
    [
        ((32, 32), (4, 8)),
        ((30, 47), (4, 32)),
        ((17, 64), (1, 1)),
        ((20, 20), (32, 16)),
        ((5, 64), (2, 32)),
        ((1, 1), (8, 8)),
    ],
)
def test_perlin_is_its_definition(shape, lattice):
    noise = perlin(shape, lattice, rng(5))
    assert noise.dtype == np.float32
    assert noise.shape == shape
    assert np.abs(noise - perlin_by_loops(shape, lattice, rng(5))).max() < 1e-5


def test_perlin_stays_in_its_bounds():
    values = np.stack([perlin((64, 64), (4, 4), rng(seed)) for seed in range(50)])
    assert np.abs(values).max() <= 1
    assert values.max() > 0.9
    assert abs(values.mean()) < 0.01
    assert np.allclose(values[:, ::16, ::16], 0, atol=1e-6)  # zero on the lattice
