"""One Gaussian per position against numpy's covariance and scipy's distance."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from anomaly_lab.estimators import gaussian
from anomaly_lab.estimators.gaussian import PositionGaussian
from tests.support.arrays import normal


def test_it_is_numpys_covariance_and_scipys_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, queries = normal(0, 40, 6, 9) + 2 * normal(1, 40, 6, 1), 3 * normal(2, 5, 6, 9)
    expected = np.empty((5, 6))
    for position in range(6):
        vectors = embedding[:, position].double().numpy()
        inverse = np.linalg.inv(np.cov(vectors, rowvar=False) + 0.01 * np.eye(9))
        for row in range(5):
            query = queries[row, position].double().numpy()
            expected[row, position] = mahalanobis(query, vectors.mean(axis=0), inverse)
    scores = PositionGaussian(0.01).fit(embedding).score(queries)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    monkeypatch.setattr(gaussian, "WORKING_NUMBERS", 2 * 16 * 9**2)  # two positions at a time
    scores = PositionGaussian(0.01).fit(embedding).score(queries)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)


def test_one_image_and_a_constant_background_leave_the_ridge() -> None:
    queries = normal(0, 4, 3, 5)
    background = normal(1, 1, 3, 5)
    expected = (queries - background).norm(dim=2) / 0.1
    for images in (1, 50):
        scores = PositionGaussian(0.01).fit(background.expand(images, -1, -1)).score(queries)
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=0)


def test_large_features_leave_no_negative_variance() -> None:
    scores = PositionGaussian(0.01).fit(1e4 * normal(0, 20, 2, 60)).score(1e4 * normal(1, 3, 2, 60))
    assert scores.isfinite().all()
    assert (scores > 0).all()


def test_batches_give_what_all_at_once_give() -> None:
    embedding, queries = normal(0, 50, 4, 7), normal(1, 5, 4, 7)
    wanted = PositionGaussian(0.01).fit(embedding).score(queries)
    streamed = PositionGaussian(0.01)
    for _ in range(2):  # a second fit knows nothing of the first
        for batch in embedding.split(8):
            streamed.update(batch)
        torch.testing.assert_close(streamed.finish().score(queries), wanted, rtol=1e-5, atol=0)


def test_a_small_spread_beside_a_large_mean_is_numpys() -> None:
    vectors = 1e3 + 1e-2 * normal(0, 60, 2, 5)
    queries = 1e3 + 1e-2 * normal(1, 3, 2, 5)
    gaussian_ = PositionGaussian(1e-6)
    for batch in vectors.split(4):
        gaussian_.update(batch)
    scores = gaussian_.finish().score(queries)
    for position in range(2):
        exact = vectors[:, position].double().numpy()
        inverse = np.linalg.inv(np.cov(exact, rowvar=False) + 1e-6 * np.eye(5))
        mean = exact.mean(axis=0).astype(np.float32)  # the mean is kept in float32
        wanted = [mahalanobis(query, mean, inverse) for query in queries[:, position].double().numpy()]
        np.testing.assert_allclose(scores[:, position].numpy(), wanted, rtol=1e-3)
