"""PatchCore: distances and weight as the paper has them, written out; a coreset that is chosen once."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.methods.patchcore import PatchCore
from tests.support.features import NOTHING
from tests.support.fitting import TEST, TRAIN, backbone, fitted, smooth


def patchcore(
    coreset: float = 0.05,
    projection: int | None = None,
    neighbors: int = 4,
    seed: int = 0,
    cache: Cache = NOTHING,
) -> PatchCore:
    return PatchCore(backbone(), cache, coreset, projection, neighbors, 2.0, seed)


def patches(images: Tensor) -> np.ndarray:
    first, second = (avg_pool2d(level, 3, 1, 1) for level in backbone()(images))
    joined = torch.cat([first, interpolate(second, first.shape[2:], mode="bilinear")], dim=1)
    return joined.double().permute(0, 2, 3, 1).numpy()


def test_patchcore_is_the_papers_distances_and_weight():
    """Section 3.3: the largest distance s*, times 1 - exp(s*) / sum over the nearest one's b neighbours."""
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
