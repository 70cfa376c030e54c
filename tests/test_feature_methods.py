"""The methods on frozen features, each against its formulae written out; random weights, tiny images."""

import logging
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from anomaly_lab.backbones import FeatureExtractor
from anomaly_lab.cache import Cache
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.estimators.gmm import GaussianMixture
from anomaly_lab.estimators.knn import KNearest
from anomaly_lab.estimators.reduce import Pca
from anomaly_lab.methods.deep_knn import DeepKnn
from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.methods.hit_milf import HitMilf
from anomaly_lab.methods.padim import Padim
from anomaly_lab.methods.patchcore import PatchCore
from anomaly_lab.networks import BUNDLED
from anomaly_lab.types import TrainBatch

SIZE = 64
TRAIN = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, SIZE, SIZE)).astype(np.float32)) / 255
TEST = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 3, SIZE, SIZE)).astype(np.float32)) / 255


@lru_cache
def backbone(pool: str = "none", layers: tuple[str, ...] = ("blocks.1", "blocks.2"), cache: Cache | None = None):
    made = FeatureExtractor(BUNDLED, "bundled", layers, pool, cache or Cache("unused", 0))
    made.load_pretrained()
    return made


def fitted(method: FittedMethod) -> FittedMethod:
    """Two batches of unlike length, as the trainer gives them."""
    for batch in (TRAIN[:8], TRAIN[8:]):
        mask = torch.zeros(len(batch), SIZE, SIZE, dtype=torch.bool)
        method.training_step(TrainBatch(batch, batch, mask), 0)
    method.on_train_epoch_end()
    return method.eval()


def smooth(coarse: np.ndarray, sigma: float) -> np.ndarray:
    large = interpolate(torch.from_numpy(coarse).double()[:, None], (SIZE, SIZE), mode="bilinear")[:, 0].numpy()
    return np.stack([gaussian_filter(one, sigma) for one in large])


def test_deep_knn_is_the_mean_squared_distance_of_standardised_vectors():
    method = fitted(DeepKnn(backbone("max"), KNearest(3, "squared")))
    extract = backbone("max")
    train, test = (torch.cat(extract(images), dim=1).double().numpy() for images in (TRAIN, TEST))
    train, test = ((vectors - train.mean(0)) / train.std(0) for vectors in (train, test))
    wanted = np.sort(cdist(test, train) ** 2)[:, :3].mean(1)
    np.testing.assert_allclose(method(TEST).score, wanted, rtol=1e-4)
    np.testing.assert_allclose(method.embed(TEST), test, rtol=1e-3, atol=1e-3)
    assert method.localises is False


def padim(channels: int = 20, sigma: float = 2.0, seed: int = 0) -> Padim:
    return Padim(backbone(), channels, PositionGaussian(0.01), sigma, seed)


def test_padim_is_the_mahalanobis_distance_at_each_position():
    method = fitted(padim())
    extract = backbone()

    def maps(images: Tensor) -> np.ndarray:
        first, second = extract(images)
        joined = torch.cat([first, interpolate(second, first.shape[2:], mode="nearest")], dim=1)
        return joined[:, method.channels_].double().numpy()

    train, test = maps(TRAIN), maps(TEST)
    assert train.shape == (12, 20, 16, 16)
    distance = np.zeros((4, 16, 16))
    for row in range(16):
        for column in range(16):
            here = train[:, :, row, column]
            inverse = np.linalg.inv(np.cov(here.T) + 0.01 * np.eye(20))
            difference = test[:, :, row, column] - here.mean(0)
            distance[:, row, column] = np.sqrt(np.einsum("bi,ij,bj->b", difference, inverse, difference))
    wanted = smooth(distance, 2.0)
    prediction = method(TEST)
    np.testing.assert_allclose(prediction.anomaly_map, wanted, rtol=1e-3)
    np.testing.assert_allclose(prediction.score, wanted.max((1, 2)), rtol=1e-3)


def test_padims_channels_are_drawn_by_the_seed_and_none_twice():
    first, again, other = padim(seed=1), padim(seed=1), padim(seed=2)
    assert torch.equal(first.channels_, again.channels_)
    assert not torch.equal(first.channels_, other.channels_)
    assert len(set(first.channels_.tolist())) == 20
    assert len(padim(channels=64).channels_) == 64
    for count in (0, 65):
        with pytest.raises(ConfigError, match=rf"model\.channels: {count}; the layers have 64"):
            padim(channels=count)


def patchcore(coreset: float = 0.05, neighbors: int = 4, cache: Cache | None = None, **changes) -> PatchCore:
    return PatchCore(
        backbone(cache=cache),
        coreset,
        **{"projection": None, "neighbors": neighbors, "sigma": 2.0, "seed": 0, **changes},
    )


def patches(images: Tensor) -> np.ndarray:
    first, second = (avg_pool2d(level, 3, 1, 1) for level in backbone()(images))
    joined = torch.cat([first, interpolate(second, first.shape[2:], mode="bilinear")], dim=1)
    return joined.double().permute(0, 2, 3, 1).numpy()


def test_patchcore_is_the_papers_distances_and_weight():
    """Section 3.3: the largest distance s*, times 1 - exp(s*) / sum over the nearest patch's b neighbours (eq. 7)."""
    method = fitted(patchcore())
    bank = method.bank_.double().numpy()
    assert bank.shape == (round(0.05 * 12 * 256), 64)
    test = patches(TEST).reshape(4, 256, 64)
    scores, maps = [], []
    for image in test:
        distance = cdist(image, bank)
        best = distance.min(1)
        worst = best.argmax()
        nearest = distance[worst].argmin()
        around = np.argsort(cdist(bank[[nearest]], bank)[0])[:4]
        share = np.exp(best[worst]) / np.exp(distance[worst][around]).sum()
        scores.append((1 - share) * best[worst])
        maps.append(best.reshape(16, 16))
    prediction = method(TEST)
    np.testing.assert_allclose(prediction.score, scores, rtol=1e-4)
    np.testing.assert_allclose(prediction.anomaly_map, smooth(np.stack(maps), 2.0), rtol=1e-4)


def test_patchcores_bank_is_made_of_training_patches():
    method = fitted(patchcore(coreset=0.02, projection=16))
    train = patches(TRAIN).reshape(-1, 64)
    distance = cdist(method.bank_.numpy(), train).min(1)
    np.testing.assert_allclose(distance, 0, atol=1e-3)
    assert len(np.unique(method.bank_.numpy(), axis=0)) == len(method.bank_)


def test_one_neighbour_leaves_the_score_as_it_is():
    method = fitted(patchcore(neighbors=1))
    distance = cdist(patches(TEST).reshape(-1, 64), method.bank_.numpy()).min(1).reshape(4, -1)
    np.testing.assert_allclose(method(TEST).score, distance.max(1), rtol=1e-4)


def test_the_coreset_is_chosen_once(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    first = fitted(patchcore(cache=cache))
    monkeypatch.setattr("anomaly_lab.methods.patchcore.greedy_coreset", None)
    assert torch.equal(fitted(patchcore(cache=cache)).bank_, first.bank_)
    with pytest.raises(TypeError):
        fitted(patchcore(cache=cache, seed=1))


def test_hit_milf_is_the_density_of_reduced_features():
    mixture = GaussianMixture(1, "full", 1e-3, 1, 10, 1e-4, 0)
    method = fitted(HitMilf(backbone("avg"), Pca(0.9, 5), mixture))
    extract = backbone("avg")
    train, test = (torch.cat(extract(images), dim=1).double().numpy() for images in (TRAIN, TEST))
    train, test = ((vectors - train.mean(0)) / train.std(0) for vectors in (train, test))
    reduction = PCA(0.9).fit(train)
    count = min(5, reduction.n_components_)
    low = reduction.transform(train)[:, :count]
    reference = Reference(1, reg_covar=1e-3).fit(low)
    wanted = -reference.score_samples(reduction.transform(test)[:, :count])
    np.testing.assert_allclose(method(TEST).score, wanted, rtol=1e-3)
    assert method.embed(TEST).shape == (4, count)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DeepKnn(backbone("none"), KNearest(1, "squared")),
            r"model\.backbone\.pool: this method wants a vector",
        ),
        (lambda: Padim(backbone("max"), 5, PositionGaussian(0.01), 1.0, 0), r"model\.backbone\.pool: .* wants maps"),
        (lambda: patchcore(coreset=0.0), r"model\.coreset: 0\.0 is no share"),
        (lambda: patchcore(neighbors=0), r"model\.neighbors: 0; give at least 1"),
        (lambda: padim(sigma=-1.0), r"model\.sigma: -1\.0"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_more_neighbours_than_images_and_more_components_are_capped_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        method = fitted(DeepKnn(backbone("max"), KNearest(50, "squared")))
        fitted(HitMilf(backbone("avg"), Pca(0.9, 3), GaussianMixture(40, "diagonal", 1e-3, 1, 5, 1e-3, 0)))
    assert method(TEST).score.isfinite().all()
    assert any("50" in line and "12" in line for line in caplog.messages)
    assert any("40" in line and "12" in line for line in caplog.messages)


@pytest.mark.parametrize("make", [padim, patchcore, lambda: DeepKnn(backbone("max"), KNearest(2, "squared"))])
def test_images_that_are_all_alike_give_no_nan(make):
    method = make()
    same = torch.full((6, 3, SIZE, SIZE), 0.5)
    method.training_step(TrainBatch(same, same, torch.zeros(6, SIZE, SIZE, dtype=torch.bool)), 0)
    method.on_train_epoch_end()
    prediction = method.eval()(torch.cat([same[:1], TEST[:1]]))
    assert prediction.score.isfinite().all()
    assert prediction.anomaly_map.isfinite().all()
    assert prediction.score[1] > prediction.score[0]
