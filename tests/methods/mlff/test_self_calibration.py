"""SCNet's convolution against a loop in float64, on any size."""

import numpy as np
import pytest
import torch

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.mlff.self_calibration import SelfCalibratedConv
from tests.methods.mlff.loops import at_each, convolved, drawn, normed, settled


def test_the_self_calibrated_convolution_is_its_formula():
    torch.manual_seed(0)
    module = settled(SelfCalibratedConv(3, 4))
    x = drawn(1, 3, 9, 10)[0].numpy()  # the last row and two columns are in no window of 4
    windows = [[x[:, r : r + 4, c : c + 4].mean((1, 2)) for c in (0, 4)] for r in (0, 4)]
    pooled = np.stack(windows).transpose(2, 0, 1)
    latent = at_each(convolved(pooled, module.latent[0]), lambda v: normed(v, module.latent[1]))
    rows = [[latent[:, r * 2 // 9, c * 2 // 10] for c in range(10)] for r in range(9)]
    up = np.stack(rows).transpose(2, 0, 1)
    original = at_each(convolved(x, module.original[0]), lambda v: normed(v, module.original[1]))
    gated = original / (1 + np.exp(-x - up))
    wanted = at_each(convolved(gated, module.out[0]), lambda v: np.maximum(normed(v, module.out[1]), 0))
    with torch.no_grad():
        found = module(torch.from_numpy(x)[None].float())[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (13, 11), (2, 3), (24, 24)])
def test_any_size_is_calibrated(size):
    with torch.no_grad():
        found = SelfCalibratedConv(4, 4).eval()(drawn(1, 4, *size).float())
    assert found.shape == (1, 4, *size)


def test_a_rate_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"model\.calibration_rate: 0; give at least 1"):
        SelfCalibratedConv(4, 0)
