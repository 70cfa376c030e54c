"""Per-pixel variation: map and score written out; the floor of the deviation."""

import numpy as np
import torch

from anomaly_lab.methods.variation import Variation
from tests.support.fitting import TEST, TRAIN, fitted


def test_it_is_the_squared_deviation_of_each_pixel_in_standard_deviations():
    prediction = fitted(Variation(0.01))(TEST)
    train, test = (images.double().numpy() for images in (TRAIN, TEST))
    deviation = (test - train.mean(0)) / np.maximum(train.std(0), 0.01)
    np.testing.assert_allclose(prediction.anomaly_map, (deviation**2).mean(1), rtol=1e-4)
    np.testing.assert_allclose(prediction.score, (deviation**2).mean(1).sum((1, 2)), rtol=1e-4)


def test_a_pixel_that_never_varies_has_the_floor_as_its_deviation():
    one = TRAIN[:1]
    prediction = fitted(Variation(0.5), one)(torch.cat([one, one + 0.5]))
    assert prediction.score[0] == 0
    torch.testing.assert_close(prediction.anomaly_map[1], torch.ones(64, 64))
