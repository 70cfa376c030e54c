"""Frozen features: which layers, pooled how; what cannot be is said before anything is read."""

import pytest
import torch

from anomaly_lab.backbones import extractor as extractors
from anomaly_lab.backbones.extractor import FeatureExtractor, pooled
from anomaly_lab.backbones.weights import BUNDLED
from anomaly_lab.errors import ConfigError
from tests.support.features import extractor, noise

IMAGE = noise(0, 3, 64, 48)


@pytest.mark.parametrize(
    ("name", "layers", "next_part"),
    [
        (BUNDLED, ("blocks.2",), "blocks.3"),
        ("resnet18", ("layer2",), "layer3"),
        ("vit_tiny_patch16_224", ("blocks.4",), "blocks.5"),
    ],
)
def test_nothing_deeper_than_the_deepest_layer_is_there(name, layers, next_part):
    ours = extractor(name, layers=layers)
    names = [part for part, _ in ours.network.named_modules()]
    assert any(part.endswith(layers[0]) for part in names)
    assert not any(part.endswith(next_part) for part in names)


def test_a_transformer_takes_other_sizes_that_its_patches_divide():
    ours = extractor("vit_tiny_patch16_224", layers=("blocks.0", "blocks.2"))
    assert [tuple(level.shape) for level in ours(IMAGE)] == [(3, 192, 4, 3)] * 2
    assert ours.strides == [16, 16]
    ours.check_size(32, 80)
    with pytest.raises(ConfigError, match=r"data\.image_size: vit_tiny_patch16_224 takes no 40 x 64"):
        ours.check_size(40, 64)
    with pytest.raises(ConfigError, match=r"data\.image_size: mixer_s32_224 takes no 64 x 64"):
        extractor("mixer_s32_224", layers=("blocks.0",)).check_size(64, 64)


def test_it_is_frozen_and_stays_in_eval_mode():
    ours = extractor().train()
    assert not any(module.training for module in ours.modules())
    assert not any(weight.requires_grad for weight in ours.parameters())


@pytest.mark.parametrize("pool", ["avg", "max", "cascade"])
def test_pooling(pool):
    level = torch.randn(2, 5, 6, 4)
    halved = level.reshape(2, 5, 3, 2, 2, 2).mean((3, 5))
    parts = {"avg": [level.mean((2, 3))], "max": [level.amax((2, 3))]}
    parts["cascade"] = [level.amax((2, 3)), level.mean((2, 3)), halved.amax((2, 3))]
    torch.testing.assert_close(pooled(level, pool), torch.cat(parts[pool], dim=1))
    assert extractor(pool=pool).channels == [120 if pool == "cascade" else 40]
    assert pooled(torch.ones(1, 2, 1, 1), pool).shape == (1, 6 if pool == "cascade" else 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"layers": ("blocks.9",)},
            r"model\.backbone\.layers: blocks\.9 is no layer of .* has blocks\.0, blocks\.1, blocks\.2",
        ),
        ({"layers": ()}, r"model\.backbone\.layers: give at least one"),
        (
            {"layers": ("blocks.1", "blocks.1")},
            "model.backbone.layers: give at least one layer, and each once",
        ),
        (
            {"name": "resnet18", "weights": "bundled"},
            f"bundled are those of {BUNDLED}; give imagenet or a FILE of timm's weights of resnet18",
        ),
        ({"name": "resnet18.nonsense"}, r"model\.backbone\.name: resnet18\.nonsense cannot be used"),
        ({"name": "resnet81"}, r"model\.backbone\.name: timm .* has no resnet81; did you mean .*resnet18"),
        (
            {"weights": "nowhere.pth"},
            r"model\.backbone\.weights: no file nowhere\.pth; give imagenet, bundled, random",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_read(arguments, message):
    good = {"name": BUNDLED, "weights": "random", "layers": ("blocks.2",), "pool": "none"}
    with pytest.raises(ConfigError, match=message) as caught:
        FeatureExtractor(**good | arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pool", "wanted", "message"),
    [
        ("max", FeatureExtractor.maps, r"model\.backbone\.pool: this method wants maps, .* not max"),
        ("none", FeatureExtractor.vectors, r"model\.backbone\.pool: .* give avg, max or cascade"),
    ],
)
def test_a_method_gets_maps_or_vectors_as_it_wants(pool, wanted, message):
    with pytest.raises(ConfigError, match=message):
        wanted(extractor(pool=pool))
    other = extractor(pool="none" if pool == "max" else "max")
    assert wanted(other) is other


def test_large_images_go_through_the_network_one_after_the_other(monkeypatch):
    made, images = extractor(pool="avg"), noise(3, 3, 40, 40)
    counts = []
    made.network.register_forward_hook(lambda _, given, __: counts.append(len(given[0])))
    (together,) = made(images)
    monkeypatch.setattr(extractors, "LARGE", 40 * 40 - 1)
    (alone,) = made(images)
    assert counts == [3, 1, 1, 1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
