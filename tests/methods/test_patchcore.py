"""PatchCore: distances and weight as the paper has them, written out; a coreset that is chosen once."""

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.patchcore import PatchCore
from tests.support.features import NOTHING
from tests.support.fitting import TEST, TRAIN, backbone, fitted, smooth


def patchcore(
    coreset: float = 0.05,
    projection: int | None = None,
    neighbors: int = 4,
    seed: int = 0,
    cache: Cache = NOTHING,
    pooled: tuple[int | None, int | None] = (None, None),
    distance: Literal["euclidean", "squared"] = "euclidean",
    start: Literal["drawn", "mean_of_ten"] = "drawn",
) -> PatchCore:
    kept = (coreset, start, projection)
    return PatchCore(backbone(), cache, *pooled, *kept, neighbors, distance, 2.0, seed)


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


def averaged(values: np.ndarray, count: int) -> np.ndarray:
    """Return means of so many stretches of the last axis, which overlap by one value at most."""
    total = values.shape[-1]
    ends = [(i * total // count, math.ceil((i + 1) * total / count)) for i in range(count)]
    assert ends[0][0] == 0
    assert ends[-1][1] == total
    assert all(start - 1 <= other <= end for (start, end), (other, _) in pairwise(ends))
    return np.stack([values[..., start:end].mean(-1) for start, end in ends], axis=-1)


def released(images: Tensor, layer: int, patch: int) -> np.ndarray:
    """Return the patch vectors in the order of the authors' code: unfold, enlarge, pool, stack, pool."""
    found = []
    for level in (exact.double() for exact in backbone()(images)):
        zeros = np.pad(level.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        height, width = level.shape[2:]
        # (B, C, 3, 3, h, w): the neighbourhood of each position, with zeros beyond the edges.
        around = np.stack(
            [
                np.stack([zeros[:, :, y : y + height, x : x + width] for x in range(3)], axis=2)
                for y in range(3)
            ],
            axis=2,
        )
        flat = torch.from_numpy(around).flatten(1, 3)  # channels first, then rows, then columns
        large = interpolate(flat, (16, 16), mode="bilinear") if found else flat
        found.append(averaged(large.permute(0, 2, 3, 1).numpy(), layer))
    return averaged(np.stack(found, axis=3).reshape(*found[0].shape[:3], 2 * layer), patch)


@pytest.mark.parametrize("pooled", [(40, 40), (64, 48), (7, 5)])  # 24 and 40 channels: 216 and 360 values
def test_pooled_patches_are_those_of_the_authors_code(pooled):
    method = patchcore(pooled=pooled)
    found = method.collect(TEST)
    assert found.shape == (4, 16, 16, pooled[1])
    np.testing.assert_allclose(found.numpy(), released(TEST, *pooled), rtol=1e-4, atol=1e-5)


def test_the_released_size_averages_each_channel_and_pairs_of_the_deeper_ones():
    """What 1024 of 1024 dimensions means at 512 and 1024 channels, in the same proportion: 20 and 40."""
    shallow = torch.rand(1, 20, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deep = torch.rand(1, 40, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    method = patchcore(pooled=(40, 40))
    both = torch.cat([method._neighbourhoods(shallow), method._neighbourhoods(deep)], dim=1)
    found = torch.nn.functional.adaptive_avg_pool1d(both.flatten(2).mT, 40).mT.unflatten(2, (6, 6))
    zeros = torch.nn.functional.pad(shallow, (1, 1, 1, 1))
    weights = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 1, 1]]) / 10  # the centre is in both halves of the nine
    wanted = sum(
        weights[y, x].double() * zeros[:, :, y : y + 6, x : x + 6] for y in range(3) for x in range(3)
    )
    torch.testing.assert_close(found[:, :20], wanted)
    mean = avg_pool2d(deep, 3, 1, 1)
    torch.testing.assert_close(found[:, 20:], (mean[:, 0::2] + mean[:, 1::2]) / 2)


def test_squared_distances_have_another_map_and_the_same_order():
    plain, squared = (fitted(patchcore(neighbors=1, distance=kind)) for kind in ("euclidean", "squared"))
    distance = cdist(patches(TEST).reshape(-1, 64), plain.bank_.numpy()).min(1).reshape(4, 16, 16)
    prediction = squared(TEST)
    np.testing.assert_allclose(prediction.score, distance.max((1, 2)) ** 2, rtol=1e-4)
    np.testing.assert_allclose(prediction.anomaly_map, smooth(distance**2, 2.0), rtol=1e-4)
    np.testing.assert_allclose(prediction.score, plain(TEST).score ** 2, rtol=1e-5)
    weighted = fitted(patchcore(neighbors=4, distance="squared"))(TEST).score
    both = fitted(patchcore(neighbors=4))(TEST).score / plain(TEST).score  # the weight alone
    np.testing.assert_allclose(weighted, prediction.score * both, rtol=1e-4)


@pytest.mark.parametrize(("pooled", "key"), [((0, 5), "layer_dimensions"), ((5, 0), "patch_dimensions")])
def test_no_dimensions_are_refused(pooled, key):
    with pytest.raises(ConfigError, match=rf"^model\.{key}: 0; give at least 1$"):
        patchcore(pooled=pooled)


def test_the_coreset_is_chosen_once(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    first = fitted(patchcore(cache=cache))
    monkeypatch.setattr("anomaly_lab.methods.patchcore.greedy_coreset", None)
    assert torch.equal(fitted(patchcore(cache=cache)).bank_, first.bank_)
    for other in ({"seed": 1}, {"start": "mean_of_ten"}):
        with pytest.raises(TypeError):
            fitted(patchcore(cache=cache, **other))
