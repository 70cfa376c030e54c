"""Per-pixel variation: map and score written out; the floor of the deviation."""

import cv2
import numpy as np
import torch

from anomaly_lab.methods.variation import Variation
from tests.support.fitting import TEST, TRAIN, fitted


def test_it_is_the_squared_deviation_of_each_pixel_in_standard_deviations():
    prediction = fitted(Variation("rgb", 0.01))(TEST)
    train, test = (images.double().numpy() for images in (TRAIN, TEST))
    deviation = (test - train.mean(0)) / np.maximum(train.std(0), 0.01)
    np.testing.assert_allclose(prediction.anomaly_map, (deviation**2).mean(1), rtol=1e-4)
    np.testing.assert_allclose(prediction.score, (deviation**2).mean(1).sum((1, 2)), rtol=1e-4)


def test_grey_values_are_compared_as_opencv_makes_them():
    """One value a pixel, as the paper: the luma of ITU-R BT.601."""
    train, test = (
        np.stack([cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in images.permute(0, 2, 3, 1).numpy()])
        for images in (TRAIN, TEST)
    )
    prediction = fitted(Variation("grey", 0.01))(TEST)
    deviation = (test.astype(float) - train.mean(0, float)) / np.maximum(train.astype(float).std(0), 0.01)
    np.testing.assert_allclose(prediction.anomaly_map, deviation**2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(prediction.score, (deviation**2).sum((1, 2)), rtol=1e-4)


def test_a_pixel_that_never_varies_has_the_floor_as_its_deviation():
    one = TRAIN[:1]
    prediction = fitted(Variation("rgb", 0.5), one)(torch.cat([one, one + 0.5]))
    assert prediction.score[0] == 0
    torch.testing.assert_close(prediction.anomaly_map[1], torch.ones(64, 64))
