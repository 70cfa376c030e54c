"""Enlarging and smoothing of coarse maps against SciPy and PyTorch's own interpolation."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomaly_lab.layers import maps
from anomaly_lab.layers.maps import enlarged
from tests.support.export import OLD


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (1, 3)])
@pytest.mark.parametrize("size", [(64, 64), (33, 70), (3, 1)])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("aligned", ["edges", "corners"])
@pytest.mark.parametrize("upsampling", ["bilinear", "bicubic"])
def test_it_is_pytorchs_enlarging_then_scipys_filter(shape, size, sigma, aligned, upsampling):
    coarse = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
    exact = torch.from_numpy(coarse)[:, None].double()
    corners = aligned == "corners"
    large = torch.nn.functional.interpolate(exact, size, mode=upsampling, align_corners=corners)[:, 0]
    wanted = np.stack([gaussian_filter(one, sigma) if sigma else one for one in large.numpy()])
    found = enlarged(torch.from_numpy(coarse), size, sigma, aligned, upsampling)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_it_stays_in_float32_under_mixed_precision():
    coarse = torch.rand(1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = enlarged(coarse, (16, 16), 2.0)
    assert torch.equal(mixed, enlarged(coarse, (16, 16), 2.0))


def test_a_kernel_far_wider_than_the_map_takes_no_memory_and_gives_the_mean():
    coarse = torch.rand(1, 4, 4)
    for sigma in (1e4, 1e15):  # whose own kernel would have 80,000 and 8e15 values
        flat = enlarged(coarse, (16, 16), sigma)
        large = torch.nn.functional.interpolate(coarse[:, None], (16, 16), mode="bilinear")
        torch.testing.assert_close(flat, large.mean().expand(1, 16, 16), atol=1e-2, rtol=0)


@pytest.mark.skipif(
    OLD, reason="the exporter of torch 2.6 refuses NumPy, and those up to 2.13 were not tried"
)
def test_it_is_exported_though_no_map_of_this_size_was_made_before():
    class Module(torch.nn.Module):
        def forward(self, coarse):
            return enlarged(coarse, (12, 20), 1.0)

    coarse = torch.rand(2, 4, 5)
    maps._matrix.cache_clear()
    program = torch.export.export(Module(), (coarse,))
    torch.testing.assert_close(program.module()(coarse), enlarged(coarse, (12, 20), 1.0))
