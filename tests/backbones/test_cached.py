"""Features kept: under which key, what is computed again, what the last batch gives; graphs know of none."""

import copy

import numpy as np
import pytest
import torch

from anomaly_lab.backbones import cached
from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.cached import CachedExtractor
from anomaly_lab.backbones.extractor import FeatureExtractor
from tests.support.features import NOTHING, extractor, noise

IMAGE = noise(0, 3, 64, 48)


def kept(cache: Cache = NOTHING, **changes) -> CachedExtractor:
    return CachedExtractor(extractor(weights="bundled", **changes), cache)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many images were computed, call by call."""
    counts: list[int] = []
    compute = FeatureExtractor.forward
    monkeypatch.setattr(
        FeatureExtractor, "forward", lambda self, image: counts.append(len(image)) or compute(self, image)
    )
    return counts


def test_a_layer_is_known_again_beside_deeper_ones(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    all_of_them = kept(cache, layers=("blocks.1", "blocks.4", "blocks.2"))(IMAGE)
    alone = kept(cache, layers=("blocks.2",))
    monkeypatch.setattr(FeatureExtractor, "forward", None)
    assert torch.equal(alone(IMAGE)[0], all_of_them[2])


def test_what_is_kept_is_what_would_be_computed_and_only_what_is_missing_is(tmp_path, computed):
    plain, ours = kept(), kept(Cache(str(tmp_path), 1))
    ours(IMAGE[:2])
    computed.clear()
    level = ours(IMAGE)[0]
    assert computed == [1]
    torch.testing.assert_close(level, plain(IMAGE)[0], rtol=1e-4, atol=1e-4)  # other batches round otherwise
    assert torch.equal(ours(IMAGE)[0], level)
    assert computed == [1, 3]  # by `plain`, not by `ours`


def test_the_last_batch_is_not_computed_again_and_no_other_is_taken_for_it(computed):
    ours = kept()
    first = ours(IMAGE)
    assert all(one is other for one, other in zip(first, ours(IMAGE.clone()), strict=True))
    assert computed == [3]
    batch = IMAGE.clone()
    ours(batch)
    batch[2, 0, 0, 0] = 1 - batch[2, 0, 0, 0]  # what was scored is kept apart from what the caller changes
    assert not torch.equal(ours(batch)[0], first[0])
    ours(batch[:2])
    with torch.autocast("cpu", torch.bfloat16):
        ours(batch[:2])
    assert computed == [3, 3, 2, 2]


@pytest.mark.parametrize("gigabytes", [0, 1])
def test_weights_that_are_loaded_replace_what_was_known(tmp_path, gigabytes):
    """By the extractor, by its network, or by the method around them."""
    other = {key: value * 1.001 for key, value in extractor(weights="bundled").network.state_dict().items()}
    for load in (
        lambda ours: ours.extractor.load_state_dict({f"network.{key}": v for key, v in other.items()}),
        lambda ours: ours.extractor.network.load_state_dict(other),
        lambda ours: torch.nn.Sequential(ours.extractor).load_state_dict(
            {f"0.network.{key}": value for key, value in other.items()}
        ),
    ):
        ours = kept(Cache(str(tmp_path), gigabytes))
        before = ours(IMAGE)[0]
        load(ours)
        assert (ours.identities, ours.last) == ([], None)
        assert not torch.equal(ours(IMAGE)[0], before)


def test_it_owns_no_weights_and_a_copy_of_a_method_is_whole():
    class Method(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = extractor(weights="bundled")
            self.features = CachedExtractor(self.backbone, NOTHING)

    method = Method()
    assert all(key.startswith("backbone.network.") for key in method.state_dict())
    wanted = method.features(IMAGE)[0]
    double = copy.deepcopy(method)
    assert double.features.extractor is double.backbone
    double.load_state_dict({key: value * 1.001 for key, value in method.state_dict().items()})
    assert not torch.equal(double.features(IMAGE)[0], wanted)
    assert torch.equal(method.features(IMAGE)[0], wanted)


@pytest.mark.filterwarnings("ignore")  # torch.export warns of its own ways
def test_nothing_of_the_cache_gets_into_a_graph(tmp_path):
    ours = kept(Cache(str(tmp_path), 1))

    class Asking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = ours.extractor

        def forward(self, image):
            return ours(image)[0]

    graph = torch.export.export(Asking(), (IMAGE,)).module()
    assert not list(tmp_path.rglob("*.npy"))
    assert ours.last is None
    torch.testing.assert_close(graph(IMAGE.flip(0)), ours(IMAGE.flip(0))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_images_that_differ_at_all_have_other_digests():
    pixels = np.arange(192, dtype=np.uint8).reshape(3, 8, 8)
    divided, multiplied = pixels / np.float32(255), pixels * np.float32(1 / 255)
    assert (divided != multiplied).any()  # the CPU's way and CUDA's
    last_bit, not_finite, huge = divided.copy(), divided.copy(), divided.copy()
    last_bit[0, 3, 3] = np.nextafter(last_bit[0, 3, 3], np.float32(1))
    not_finite[0, 3, 3], huge[0, 3, 3] = np.nan, 1e38
    images = [divided, multiplied, last_bit, not_finite, huge, divided - 1, divided + 1]
    images += [divided.transpose(0, 2, 1), divided.reshape(3, 4, 16)]
    assert len({cached.source(image) for image in images}) == len(images)
    assert cached.source(divided) == cached.source(divided.transpose(2, 1, 0).copy().transpose(2, 1, 0))


def test_nothing_stale_comes_back(tmp_path):
    """One grey value, another size, another weight, layer, pooling or precision: each is another entry."""
    cache = Cache(str(tmp_path), 1)
    ours = kept(cache)
    count = lambda: len(list(tmp_path.rglob("*.npy")))  # noqa: E731
    ours(IMAGE[:1])
    seen = count()
    changed = IMAGE[:1].clone()
    changed[0, 0, 0, 0] = (changed[0, 0, 0, 0] * 255 + (1 if changed[0, 0, 0, 0] < 0.5 else -1)) / 255
    float_only = IMAGE[:1] + 1e-6  # no 8-bit image, though it rounds to one
    other = kept(cache)
    with torch.no_grad():
        next(other.extractor.network.parameters()).mul_(1.001)
    late = kept(cache)
    late(IMAGE[:1])
    late.extractor.load_state_dict({k: value * 1.001 for k, value in late.extractor.state_dict().items()})
    calls = [
        lambda: late(IMAGE[:1]),
        lambda: ours(changed),
        lambda: ours(float_only),
        lambda: ours(IMAGE[:1, :, :48]),
        lambda: ours(IMAGE[:1].transpose(2, 3)),
        lambda: other(IMAGE[:1]),
        lambda: kept(cache, layers=("blocks.1",))(IMAGE[:1]),
        lambda: kept(cache, pool="max")(IMAGE[:1]),
    ]
    for index, call in enumerate(calls):
        call()
        assert count() == seen + 1, index
        seen += 1
    with torch.autocast("cpu", torch.bfloat16):
        ours(IMAGE[:1])
    assert count() == seen + 1
    ours(IMAGE[:1])
    assert count() == seen + 1
