"""Nearest training image: distances and map written out."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from anomaly_lab.methods.nearest import Nearest
from tests.support.fitting import TEST, TRAIN, fitted


def test_it_is_the_distance_to_the_nearest_image_and_its_map_the_squared_difference():
    prediction = fitted(Nearest())(TEST)
    train, test = (images.double().numpy() for images in (TRAIN, TEST))
    distance = cdist(test.reshape(4, -1), train.reshape(12, -1))
    np.testing.assert_allclose(prediction.score, distance.min(1), rtol=1e-5)
    wanted = ((test - train[distance.argmin(1)]) ** 2).sum(1)
    np.testing.assert_allclose(prediction.anomaly_map, wanted, rtol=1e-4, atol=1e-6)


def test_an_image_of_the_training_is_its_own_nearest():
    close = (TRAIN + 1e-4).clamp(max=1)  # a matrix product in float32 would lose these differences
    method = fitted(Nearest(), torch.cat([TRAIN, close]))
    assert method(TRAIN).score.max() == 0
    assert method(close).score.max() == 0
