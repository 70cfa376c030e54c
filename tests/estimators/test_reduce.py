"""Standardisation and principal components against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from anomaly_lab.estimators.reduce import Pca, Standardizer
from tests.support.arrays import normal


def test_standardizer_is_scikit_learns() -> None:
    fitted, queries = 5 * normal(0, 200, 7) + 100, normal(1, 20, 7)
    theirs = StandardScaler().fit(fitted.double()).transform(queries.double())
    np.testing.assert_allclose(Standardizer().fit(fitted)(queries).numpy(), theirs, rtol=1e-4)


def test_a_constant_feature_is_centred_and_not_divided() -> None:
    spread = torch.tensor([1000, 0, 1e-6])  # the last: rounding noise
    fitted = spread * normal(0, 50, 3) + torch.tensor([0, 0.1, 7])
    assert fitted[:, 2].std() > 0
    standard = Standardizer().fit(fitted)(torch.tensor([[0.0, 0.6, 8.0]]))
    torch.testing.assert_close(standard[0, 1:], torch.tensor([0.5, 1.0]))
    for vectors in (torch.full((4, 2), 0.3), normal(1, 1, 2)):
        torch.testing.assert_close(Standardizer().fit(vectors)(vectors), torch.zeros_like(vectors))


@pytest.mark.parametrize(("count", "width"), [(200, 12), (15, 40)])
def test_components_are_scikit_learns(count: int, width: int) -> None:
    scales = torch.logspace(0, -1.5, width)
    fitted, queries = normal(0, count, width) * scales + 3, normal(1, 10, width)
    theirs = PCA(0.9, svd_solver="full").fit(fitted.double())
    ours = Pca(0.9, 100).fit(fitted)
    assert ours.components_.shape == theirs.components_.shape
    largest = np.abs(theirs.components_).argmax(axis=1)[:, None]
    signs = np.sign(np.take_along_axis(theirs.components_, largest, axis=1))
    np.testing.assert_allclose(ours.components_.numpy(), theirs.components_ * signs, atol=1e-4)
    wanted = theirs.transform(queries.double()) * signs[:, 0]
    np.testing.assert_allclose(ours(queries).numpy(), wanted, atol=1e-4)


def test_components_stay_in_float32_under_autocast() -> None:
    fitted = normal(0, 60, 8) * torch.logspace(0, -1, 8)
    expected = Pca(0.9, 5).fit(fitted)(fitted)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Pca(0.9, 5).fit(fitted)(fitted), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("count", "width", "variance", "most", "kept"),
    [(50, 8, 1.0, 100, 8), (6, 8, 1.0, 100, 5), (50, 8, 1.0, 3, 3), (50, 8, 1e-6, 9, 1), (1, 8, 0.9, 9, 1)],
)
def test_components_are_as_few_as_the_data_and_the_limits_allow(
    count: int, width: int, variance: float, most: int, kept: int
) -> None:
    components = Pca(variance, most).fit(normal(0, count, width)).components_
    assert components.shape == (kept, width)
    torch.testing.assert_close(components @ components.T, torch.eye(kept), atol=1e-5, rtol=0)
