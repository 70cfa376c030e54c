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
    ours = Pca("largest", 0.9, 100).fit(fitted)
    assert ours.components_.shape == theirs.components_.shape
    largest = np.abs(theirs.components_).argmax(axis=1)[:, None]
    signs = np.sign(np.take_along_axis(theirs.components_, largest, axis=1))
    np.testing.assert_allclose(ours.components_.numpy(), theirs.components_ * signs, atol=1e-4)
    wanted = theirs.transform(queries.double()) * signs[:, 0]
    np.testing.assert_allclose(ours(queries).numpy(), wanted, atol=1e-4)


def test_components_stay_in_float32_under_autocast() -> None:
    fitted = normal(0, 60, 8) * torch.logspace(0, -1, 8)
    expected = Pca("largest", 0.9, 5).fit(fitted)(fitted)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Pca("largest", 0.9, 5).fit(fitted)(fitted), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("count", "width", "variance", "most", "kept"),
    [(50, 8, 1.0, 100, 8), (6, 8, 1.0, 100, 5), (50, 8, 1.0, 3, 3), (50, 8, 1e-6, 9, 1), (1, 8, 0.9, 9, 1)],
)
def test_components_are_as_few_as_the_data_and_the_limits_allow(
    count: int, width: int, variance: float, most: int, kept: int
) -> None:
    components = Pca("largest", variance, most).fit(normal(0, count, width)).components_
    assert components.shape == (kept, width)
    torch.testing.assert_close(components @ components.T, torch.eye(kept), atol=1e-5, rtol=0)


def negated(fitted: np.ndarray, variance: float) -> np.ndarray:
    """Return the components that the negated PCA of Rippel et al. keeps, in float64 by scikit-learn."""
    theirs = PCA(svd_solver="full").fit(fitted)
    shares = theirs.explained_variance_ratio_.cumsum()
    reached = next(index for index, share in enumerate(shares) if share > variance)
    kept = [
        axis
        for axis, spread in zip(theirs.components_, theirs.singular_values_, strict=True)
        if spread > 1e-6 * theirs.singular_values_[0]
    ]
    chosen = np.array(kept[max(0, reached - 1) :])  # their code would take the last alone at 0
    largest = np.abs(chosen).argmax(axis=1)[:, None]
    return chosen * np.sign(np.take_along_axis(chosen, largest, axis=1))


@pytest.mark.parametrize(("count", "width", "variance"), [(200, 12, 0.9), (200, 12, 0.5), (15, 40, 0.9)])
def test_smallest_components_are_scikit_learns(count: int, width: int, variance: float) -> None:
    fitted = normal(0, count, width) * torch.logspace(0, -1.5, width) + 3
    wanted = negated(fitted.double().numpy(), variance)
    ours = Pca("smallest", variance, 100).fit(fitted)
    assert ours.components_.dtype == torch.float32
    np.testing.assert_allclose(ours.components_.numpy(), wanted, atol=1e-4)
    queries = normal(1, 10, width)
    low = (queries.double().numpy() - fitted.double().numpy().mean(axis=0)) @ wanted.T
    np.testing.assert_allclose(ours(queries).numpy(), low, atol=1e-4)
    few = Pca("smallest", variance, 3).fit(fitted).components_
    torch.testing.assert_close(few, ours.components_[-3:])


def test_what_is_largest_and_smallest_is_all_there_is() -> None:
    fitted = normal(0, 50, 8) * torch.logspace(0, -1, 8)
    largest, smallest = (Pca(keep, 0.9, 99).fit(fitted).components_ for keep in ("largest", "smallest"))
    assert len(largest) + len(smallest) == 8 + 2  # the two between which the share is reached are in both
    both = torch.cat([largest[:-2], smallest])
    torch.testing.assert_close(both @ both.T, torch.eye(8), atol=1e-5, rtol=0)


def test_smallest_components_leave_out_directions_without_variance() -> None:
    fitted = normal(0, 50, 6) @ normal(1, 6, 9)  # of rank 6 in 9 dimensions
    smallest = Pca("smallest", 1e-6, 99).fit(fitted)  # all that there are
    assert smallest.components_.shape == (6, 9)
    assert smallest(fitted).std(dim=0).min() > 1e-3
    assert Pca("smallest", 0.9, 9).fit(normal(0, 1, 8)).components_.shape == (1, 8)


def test_without_a_reduction_vectors_stay_as_they_are() -> None:
    fitted = normal(0, 20, 6)
    assert torch.equal(Pca("none", 0.9, 2).fit(fitted)(fitted), fitted)
