"""PaDiM: the Mahalanobis distance at each position written out, and the channels that are drawn."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.layers.maps import Upsampling
from anomaly_lab.methods.padim import Padim
from tests.support.features import NOTHING
from tests.support.fitting import TEST, TRAIN, backbone, fitted, smooth


def padim(channels: int = 20, seed: int = 0, upsampling: Upsampling = "bilinear") -> Padim:
    return Padim(backbone(), NOTHING, channels, PositionGaussian(0.01), upsampling, 2.0, seed)


@pytest.mark.parametrize("upsampling", ["bilinear", "bicubic"])
def test_padim_is_the_mahalanobis_distance_at_each_position(upsampling):
    method = fitted(padim(upsampling=upsampling))
    extract = backbone()

    def maps(images: Tensor) -> np.ndarray:
        first, second = extract(images)
        joined = torch.cat([first, interpolate(second, first.shape[2:], mode="nearest")], dim=1)
        return joined[:, method.channels_].double().numpy()

    train, test = maps(TRAIN), maps(TEST)
    assert train.shape == (12, 20, 16, 16)
    distance = np.zeros((4, 16, 16))
    for row in range(16):
        for column in range(16):
            here = train[:, :, row, column]
            inverse = np.linalg.inv(np.cov(here.T) + 0.01 * np.eye(20))
            difference = test[:, :, row, column] - here.mean(0)
            distance[:, row, column] = np.sqrt(np.einsum("bi,ij,bj->b", difference, inverse, difference))
    wanted = smooth(distance, 2.0, upsampling)
    prediction = method(TEST)
    np.testing.assert_allclose(prediction.anomaly_map, wanted, rtol=1e-3)
    np.testing.assert_allclose(prediction.score, wanted.max((1, 2)), rtol=1e-3)


def test_padims_channels_are_drawn_by_the_seed_and_none_twice():
    first, again, other = padim(seed=1), padim(seed=1), padim(seed=2)
    assert torch.equal(first.channels_, again.channels_)
    assert not torch.equal(first.channels_, other.channels_)
    assert len(set(first.channels_.tolist())) == 20
    assert len(padim(channels=64).channels_) == 64
    for count in (0, 65):
        with pytest.raises(ConfigError, match=rf"model\.channels: {count}; the layers have 64"):
            padim(channels=count)
