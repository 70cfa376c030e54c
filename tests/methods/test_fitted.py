"""What methods on frozen features have in common: what cannot be, what is capped, a training they refuse."""

import gc
import logging

import pytest
import torch

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.estimators.gmm import GaussianMixture
from anomaly_lab.estimators.knn import KNearest
from anomaly_lab.estimators.reduce import Pca
from anomaly_lab.methods.deep_knn import DeepKnn
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.methods.hit_milf import HitMilf
from anomaly_lab.methods.nearest import Nearest
from anomaly_lab.methods.padim import Padim
from anomaly_lab.methods.patchcore import PatchCore
from anomaly_lab.methods.variation import Variation
from tests.support.features import NOTHING, noise
from tests.support.fitting import SIZE, TEST, backbone, fitted
from tests.support.train_batches import unlabelled
from tests.support.training import PLAN, told


def padim(sigma: float = 2.0, pool: str = "none") -> Padim:
    return Padim(backbone(pool), NOTHING, 20, PositionGaussian(0.01), "bilinear", sigma, 0)


def patchcore(coreset: float = 0.05, neighbors: int = 4) -> PatchCore:
    return PatchCore(backbone(), NOTHING, None, None, coreset, "drawn", None, neighbors, "euclidean", 2.0, 0)


def deep_knn(neighbors: int = 2, pool: str = "max") -> DeepKnn:
    return DeepKnn(backbone(pool), NOTHING, KNearest(neighbors, "squared"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: deep_knn(pool="none"), r"model\.backbone\.pool: this method wants a vector"),
        (lambda: padim(pool="max"), r"model\.backbone\.pool: .* wants maps"),
        (lambda: patchcore(coreset=0.0), r"model\.coreset: 0\.0 is no share"),
        (lambda: patchcore(neighbors=0), r"model\.neighbors: 0; give at least 1"),
        (lambda: padim(sigma=-1.0), r"model\.sigma: -1\.0"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_more_neighbours_than_images_and_more_components_are_capped_and_said(caplog):
    mixture = GaussianMixture(40, "diagonal", 1e-3, 1, 5, 1e-3, 0)
    with caplog.at_level(logging.WARNING):
        method = fitted(deep_knn(50))
        fitted(HitMilf(backbone("avg"), NOTHING, Pca("largest", 0.9, 3), mixture))
    assert method(TEST).score.isfinite().all()
    assert any("50" in line and "12" in line for line in caplog.messages)
    assert any("40" in line and "12" in line for line in caplog.messages)


@pytest.mark.parametrize("make", [padim, patchcore, deep_knn])
def test_images_that_are_all_alike_give_no_nan(make):
    same = torch.full((6, 3, SIZE, SIZE), 0.5)
    prediction = fitted(make(), same)(torch.cat([same[:1], TEST[:1]]))
    assert prediction.score.isfinite().all()
    assert prediction.anomaly_map.isfinite().all()
    assert prediction.score[1] > prediction.score[0]


@pytest.mark.parametrize("change", [{"epochs": 2}, {"each_once": False}])
def test_a_training_that_gives_no_image_exactly_once_is_refused(change):
    assert told(padim()).plan == PLAN
    with pytest.raises(ConfigError, match=r"give trainer\.max_epochs=1 data\.sampling=shuffle"):
        told(padim(), **change)


def bytes_of_tensors() -> int:
    """Count what all living tensors hold, each memory once."""
    gc.collect()
    real = (found for found in gc.get_objects() if type(found) in {torch.Tensor, torch.nn.Parameter})
    held = [found.untyped_storage() for found in real if not found.is_meta]
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


@pytest.mark.parametrize(
    ("make", "grows"), [(padim, False), (lambda: Variation("rgb", 0.01), False), (patchcore, True)]
)
def test_where_moments_are_enough_memory_does_not_grow_with_the_images(make, grows):
    method = make()
    held = []
    for count in (3, 9):  # 12 images, then four times as many
        for index in range(count):
            images = noise(index, 4, SIZE, SIZE)
            method.training_step(unlabelled(images), 0)
        held.append(bytes_of_tensors())
    assert (held[1] > held[0]) == grows


class Sum(SinglePassMethod):
    """Adds images up, and knows of no other process."""

    def forward(self, image):
        raise NotImplementedError

    def update(self, image):
        """Take nothing in."""

    def finish(self):
        """Learn nothing."""


def test_sums_that_no_process_joins_are_refused_where_several_share_the_images():
    told(Sum(), pseudo=False)
    line = r"^trainer\.devices: Sum knows of no other process's images; give trainer\.devices=1, or see docs"
    with pytest.raises(ConfigError, match=line):
        told(Sum(), pseudo=False, ranks=2)
    told(Nearest(), pseudo=False, ranks=2)
