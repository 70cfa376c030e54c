"""The places of embeddings: t-SNE keeps kinds apart, and every kind has a look."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_limits

from anomaly_lab.pictures.embedding import scatter_figure, tsne
from tests.support.pictures import rendered, words

TITLE = "nearest / mvtec / part / run-01234567-seed0"


def blobs(count: int, features: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return three kinds of float32 vectors, five standard deviations apart, and their kinds."""
    rng, kind = np.random.default_rng(2), np.arange(count) % 3
    return (rng.normal(size=(count, features)) + 5 * np.eye(features)[kind]).astype(np.float32), kind


def test_kinds_that_lie_apart_stay_apart():
    embedding, kind = blobs(90)
    places = tsne(embedding)
    distance = cdist(places, places) + np.diag(np.full(90, np.inf))
    assert (kind[distance.argmin(1)] == kind).mean() > 0.95
    assert trustworthiness(embedding, places) > 0.75  # 0.5 for places drawn by lot


def test_the_places_depend_on_no_number_of_threads():
    embedding, _ = blobs(40)
    runs = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            runs.append(tsne(embedding))
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize(
    "embedding",
    [
        np.full((7, 12), 0.1, np.float32),
        np.zeros((5, 3), np.float32),
        np.arange(6, dtype=np.float32)[:, None],
        np.repeat(np.eye(3, 20, dtype=np.float32) * 1e30, 3, axis=0),
        blobs(5)[0] * np.float32(1e-20),
    ],
    ids=["constant", "zero", "one number", "copies, huge", "the fewest, tiny"],
)
def test_odd_embeddings_have_finite_places(embedding):
    places = tsne(embedding)
    assert places.shape == (len(embedding), 2)
    assert np.isfinite(places).all()
    assert (np.ptp(places) > 0) == (np.ptp(embedding, axis=0).max() > 0)


def test_each_kind_has_a_look_and_its_count_whatever_its_name():
    names = ["good"] * 3 + ["_dent"] * 2 + ["$a_^$"] + [f"defect {k}" for k in range(9)] + ["wM" * 150]
    kinds = np.array([name if name != "good" else "" for name in names])
    points = np.random.default_rng(0).normal(size=(len(names), 2))
    figure = scatter_figure(points, kinds, TITLE, "latent")
    (axes,) = figure.axes
    shown = words(axes)
    assert shown[:3] == ["3 normal", "1 $a_^$", "2 _dent"]
    assert len(shown) == len(axes.collections) == len(set(names))
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections}
    assert len(looks) == len(set(names))
    np.testing.assert_array_equal(axes.collections[2].get_offsets(), points[3:5])
    picture = rendered(figure)
    assert (picture[:, -4:] == 255).all()
