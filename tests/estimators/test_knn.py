"""Nearest neighbours against all distances in float64 and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from anomaly_lab.estimators import knn
from anomaly_lab.estimators.knn import KNearest, nearest
from tests.support.arrays import normal

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
    chosen = np.take_along_axis(every, rows.numpy(), axis=1)
    np.testing.assert_allclose(chosen, distance.numpy(), rtol=1e-5, atol=1e-7)
    assert all(len(set(row)) == count for row in rows.tolist())


def test_a_vector_of_the_bank_is_nearest_to_itself_far_from_zero() -> None:
    bank = CASES["far from zero"][1]
    distance, rows = nearest(bank, bank, 1)
    assert distance.max() == 0
    assert torch.equal(rows[:, 0], torch.arange(600))


@pytest.mark.parametrize(("distance", "power"), [("euclidean", 1), ("squared", 2)])
def test_k_nearest_is_the_mean_of_scikit_learns_distances(distance: str, power: int) -> None:
    bank, queries = normal(0, 400, 20), normal(1, 60, 20)
    theirs = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(bank.double())
    distances, _ = theirs.kneighbors(queries.double())
    ours = KNearest(15, distance).fit(bank).score(queries)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.numpy(), (distances**power).mean(axis=1), rtol=1e-5)


def test_k_nearest_is_capped_by_the_bank_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bank, queries = normal(0, 3, 4), normal(1, 10, 4)
    estimator = KNearest(15, "euclidean").fit(bank)
    scores = torch.cat([estimator.score(query[None]) for query in queries])
    np.testing.assert_allclose(scores.numpy(), cdist(queries.double(), bank.double()).mean(axis=1), rtol=1e-5)
    (message,) = caplog.messages
    assert "15" in message
    assert "3" in message
