"""Nearest neighbours, one Gaussian per position, standardisation and components against numpy, scipy, scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators import gaussian, knn
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.estimators.gmm import GaussianMixture
from anomaly_lab.estimators.knn import KNearest, nearest
from anomaly_lab.estimators.reduce import Pca, Standardizer
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


SIDES = torch.where(normal(2, 900, 1) < 0, -1000, 1000)
# name -> queries, bank, k
CASES = {
    "many": (normal(0, 300, 13), normal(1, 500, 13) + 1, 7),
    "a bank of two": (normal(0, 50, 13), normal(1, 2, 13) + 1, 2),
    "one query": (normal(0, 1, 13), normal(1, 400, 13) + 1, 1),
    "all of the bank": (normal(0, 40, 13), normal(1, 9, 13) + 1, 9),
    "far from zero": (normal(1, 100, 5) + 10_000, normal(0, 600, 5) + 10_000, 5),
    # Products in float32 know these distances only to 0.1; the spread of a cluster is a hundredth.
    "two far clusters": (SIDES[:200] + 0.01 * normal(3, 200, 6), SIDES + 0.01 * normal(4, 900, 6), 5),
    "doubles": (normal(0, 30, 4), normal(1, 20, 4).repeat(15, 1), 20),
}


@pytest.mark.parametrize("room", [2**26, 3000, 300])
@pytest.mark.parametrize("case", CASES)
def test_nearest_is_exact_whatever_the_chunks(case: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with all distances in float64; among equal ones any row will do, but each only once."""
    monkeypatch.setattr(knn, "WORKING_NUMBERS", room)  # 300: ten vectors at a time
    queries, bank, count = CASES[case]
    distance, rows = nearest(queries, bank, count)
    assert (distance.dtype, rows.dtype) == (torch.float32, torch.int64)
    every = cdist(queries.double().numpy(), bank.double().numpy())
    np.testing.assert_allclose(distance.numpy(), np.sort(every, axis=1)[:, :count], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(every, rows.numpy(), axis=1), distance.numpy(), rtol=1e-5, atol=1e-7)
    assert all(len(set(row)) == count for row in rows.tolist())


def test_a_vector_of_the_bank_is_nearest_to_itself_far_from_zero() -> None:
    bank = CASES["far from zero"][1]
    distance, rows = nearest(bank, bank, 1)
    assert distance.max() == 0
    assert torch.equal(rows[:, 0], torch.arange(600))


@pytest.mark.parametrize(("distance", "power"), [("euclidean", 1), ("squared", 2)])
def test_k_nearest_is_the_mean_of_scikit_learns_distances(distance: str, power: int) -> None:
    bank, queries = normal(0, 400, 20), normal(1, 60, 20)
    theirs, _ = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(bank.double()).kneighbors(queries.double())
    ours = KNearest(15, distance).fit(bank).score(queries)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.numpy(), (theirs**power).mean(axis=1), rtol=1e-5)


def test_k_nearest_is_capped_by_the_bank_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bank, queries = normal(0, 3, 4), normal(1, 10, 4)
    estimator = KNearest(15, "euclidean").fit(bank)
    scores = torch.cat([estimator.score(query[None]) for query in queries])
    np.testing.assert_allclose(scores.numpy(), cdist(queries.double(), bank.double()).mean(axis=1), rtol=1e-5)
    (message,) = caplog.messages
    assert "15" in message
    assert "3" in message


def test_one_gaussian_per_position_is_numpys_covariance_and_scipys_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, queries = normal(0, 40, 6, 9) + 2 * normal(1, 40, 6, 1), 3 * normal(2, 5, 6, 9)
    expected = np.empty((5, 6))
    for position in range(6):
        vectors = embedding[:, position].double().numpy()
        inverse = np.linalg.inv(np.cov(vectors, rowvar=False) + 0.01 * np.eye(9))
        for row in range(5):
            query = queries[row, position].double().numpy()
            expected[row, position] = mahalanobis(query, vectors.mean(axis=0), inverse)
    np.testing.assert_allclose(PositionGaussian(0.01).fit(embedding).score(queries).numpy(), expected, rtol=1e-4)
    monkeypatch.setattr(gaussian, "WORKING_NUMBERS", 2 * 4 * 9 * (40 + 36))  # two positions at a time
    np.testing.assert_allclose(PositionGaussian(0.01).fit(embedding).score(queries).numpy(), expected, rtol=1e-4)


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


def test_standardizer_is_scikit_learns() -> None:
    fitted, queries = 5 * normal(0, 200, 7) + 100, normal(1, 20, 7)
    theirs = StandardScaler().fit(fitted.double()).transform(queries.double())
    np.testing.assert_allclose(Standardizer().fit(fitted)(queries).numpy(), theirs, rtol=1e-4)


def test_a_constant_feature_is_centred_and_not_divided() -> None:
    fitted = torch.tensor([1000, 0, 1e-6]) * normal(0, 50, 3) + torch.tensor([0, 0.1, 7])  # the last: rounding noise
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
    signs = np.sign(np.take_along_axis(theirs.components_, np.abs(theirs.components_).argmax(axis=1)[:, None], axis=1))
    np.testing.assert_allclose(ours.components_.numpy(), theirs.components_ * signs, atol=1e-4)
    np.testing.assert_allclose(ours(queries).numpy(), theirs.transform(queries.double()) * signs[:, 0], atol=1e-4)


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


VECTORS = [
    KNearest(4, "euclidean"),
    KNearest(4, "squared"),
    GaussianMixture(3, "full", 1e-3, 2, 20, 1e-4, 0),
    GaussianMixture(3, "diagonal", 1e-3, 2, 20, 1e-4, 0),
]


@pytest.mark.parametrize("estimator", [*VECTORS, PositionGaussian(0.01)], ids=lambda e: type(e).__name__)
def test_scores_do_not_depend_on_the_batch_nor_on_autocast(estimator: Estimator) -> None:
    shape = (2, 6) if isinstance(estimator, PositionGaussian) else (6,)
    queries = normal(1, 33, *shape)
    fitted = normal(0, 150, *shape)
    scores = estimator.fit(fitted).score(queries)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(
        torch.cat([estimator.score(query[None]) for query in queries]), scores, rtol=1e-5, atol=0
    )
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(estimator.fit(fitted).score(queries), scores, rtol=1e-6, atol=0)


class Detector(AnomalyMethod):
    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, image: Tensor) -> Prediction:
        score = self.estimator.score(image.flatten(1))
        return Prediction(score[:, None, None], score)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:
        self.estimator.fit(batch.clean.flatten(1))


def test_a_fresh_estimator_scores_alike_with_the_weights_of_another() -> None:
    queries = normal(1, 5, 6)
    for fitted, fresh in (
        (KNearest(4, "squared"), KNearest(4, "squared")),
        (GaussianMixture(2, "full", 1e-3, 1, 9, 1e-4, 0), GaussianMixture(2, "full", 1e-3, 1, 9, 1e-4, 0)),
    ):
        fitted.fit(normal(0, 80, 6))
        state, detector = Detector(fitted).state_dict(), Detector(fresh)
        detector.on_load_checkpoint({"state_dict": state})
        detector.load_state_dict(state)
        assert torch.equal(fresh.score(queries), fitted.score(queries))


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("estimator.neighbors", lambda: KNearest(0, "euclidean")),
        ("estimator.ridge", lambda: PositionGaussian(0.0)),
        ("estimator.ridge", lambda: GaussianMixture(1, "full", 0.0, 1, 1, 1e-3, 0)),
        ("estimator.components", lambda: GaussianMixture(0, "full", 1e-3, 1, 1, 1e-3, 0)),
        ("estimator.restarts", lambda: GaussianMixture(1, "full", 1e-3, 0, 1, 1e-3, 0)),
        ("estimator.iterations", lambda: GaussianMixture(1, "full", 1e-3, 1, 0, 1e-3, 0)),
        ("reduction.variance", lambda: Pca(0.0, 3)),
        ("reduction.variance", lambda: Pca(1.5, 3)),
        ("reduction.max_components", lambda: Pca(0.9, 0)),
    ],
)
def test_values_out_of_range_name_their_key(key: str, build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=f"model.{key}: "):
        build()
