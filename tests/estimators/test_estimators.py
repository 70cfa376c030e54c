"""What estimators have in common: any batch or precision, a state that another takes, values named by key."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.estimators.gmm import GaussianMixture
from anomaly_lab.estimators.knn import KNearest
from anomaly_lab.estimators.reduce import Pca
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch
from tests.support.arrays import normal

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
        ("reduction.variance", lambda: Pca("largest", 0.0, 3)),
        ("reduction.variance", lambda: Pca("largest", 1.5, 3)),
        ("reduction.max_components", lambda: Pca("smallest", 0.9, 0)),
    ],
)
def test_values_out_of_range_name_their_key(key: str, build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=f"model.{key}: "):
        build()
