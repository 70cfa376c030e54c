"""Frozen features: which layers, normalised how, kept under which key; where weights come from, and what misfits."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
from safetensors.torch import save_file

from anomaly_lab import backbones
from anomaly_lab.backbones import FeatureExtractor, TrainedBackbone, pooled
from anomaly_lab.cache import Cache
from anomaly_lab.errors import ConfigError
from anomaly_lab.networks import BUNDLED, bundled, sketched
from anomaly_lab.nn.folding import folded
from anomaly_lab.pretrained import bundled_weights, weights_identity

NOTHING = Cache("unused", 0)
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 64, 48)).astype(np.float32)) / 255


def extractor(name: str = BUNDLED, weights: str = "random", layers: tuple[str, ...] = ("blocks.2",), **changes):
    made = FeatureExtractor(name, weights, layers, **{"pool": "none", "cache": NOTHING, **changes})
    made.load_pretrained()
    return made


def test_the_bundled_weights_know_a_cat():
    """Classes 281 to 285 of ImageNet-1k are the domestic cats; the photograph is of one."""
    network = timm.create_model(BUNDLED)
    network.load_state_dict(bundled())
    cat = torch.from_numpy(skimage.data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None].float() / 255
    cat = torch.nn.functional.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = network.eval()((cat - 0.5) / 0.5)[0].topk(3).indices.tolist()
    assert set(best) <= {281, 282, 283, 284, 285}


@pytest.mark.parametrize("kind", ["extractor", "frozen", "trained"])
def test_features_are_those_of_the_whole_network_on_the_normalised_image(kind):
    if kind == "extractor":
        ours = extractor(weights="bundled", layers=("blocks.4", "blocks.1"))
    else:
        ours = TrainedBackbone(BUNDLED, "bundled", ["blocks.4", "blocks.1"], freeze=kind == "frozen").eval()
        ours.load_pretrained()
    network = timm.create_model(BUNDLED)
    network.load_state_dict(bundled())
    kept = {}
    for index in (1, 4):
        network.blocks[index].register_forward_hook(lambda _m, _i, out, index=index: kept.update({index: out}))
    with torch.no_grad():
        network.eval()((IMAGE - 0.5) / 0.5)
    for level, index in zip(ours(IMAGE), (4, 1), strict=True):
        torch.testing.assert_close(level, kept[index], rtol=1e-4, atol=1e-4)  # norms are folded: rounding differs
    assert (ours.channels, ours.strides) == ([112, 24], [16, 4])


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


def test_a_network_whose_maps_have_channels_last_is_refused():
    name, layers = "swin_tiny_patch4_window7_224", ["layers.0"]
    for ours in (extractor(name, layers=layers, pool="avg"), TrainedBackbone(name, "random", layers, freeze=True)):
        with pytest.raises(
            ConfigError, match=rf"^model\.backbone\.name: {name} gives maps of \(56, 56, 96\) for 96 ch"
        ):
            ours.check_size(224, 224)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "hardcorenas_a", "vgg11", "mixer_s32_224", "convnext_atto"])
def test_networks_of_every_kind_with_channels_first_are_taken(name):
    with torch.device("meta"):
        known = [level["module"] for level in sketched(name)[0].feature_info.info]
        ours = TrainedBackbone(name, "random", [known[2], known[1]], freeze=False)
        ours.check_size(224, 224)
        maps = ours.eval()(torch.empty(1, 3, 224, 224))
    assert [level.shape[1] for level in maps] == ours.channels
    assert [224 // level.shape[2] for level in maps] == ours.strides


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "ghostnet_050", "densenet121", "convnext_atto"])
def test_folded_norms_change_no_output(name):
    """Networks that end a layer in a convolution, that normalise first, or that have no batch norm, too."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True, out_indices=(0, 1, 2)).eval().double()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        wanted = network(IMAGE.double())
        fast = folded(network)
        found = fast(IMAGE.double())
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    left = [module for module in fast.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(left) < len(norms) or not norms


class Skipping(torch.nn.Module):
    """Its convolution is read by the norm and by a skip; its second norm comes after an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)

    def forward(self, image):
        convolved = self.conv(image)
        return [self.last((self.norm(convolved) + convolved).relu_())]


def test_a_network_that_cannot_be_folded_stays_as_it_is():
    network = Skipping().eval()
    network.norm.running_mean.fill_(3.0)
    with torch.no_grad():
        wanted = network(IMAGE)[0]
        assert torch.equal(folded(network)(IMAGE)[0], wanted)
    assert extractor("inception_v3", layers=("Conv2d_2b_3x3",)).network is not None  # takes no image of 64 pixels


def test_a_layer_is_known_again_beside_deeper_ones(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    all_of_them = extractor(weights="bundled", layers=("blocks.1", "blocks.4", "blocks.2"), cache=cache)(IMAGE)
    alone = extractor(weights="bundled", layers=("blocks.2",), cache=cache)
    monkeypatch.setattr(FeatureExtractor, "_compute", None)
    assert torch.equal(alone(IMAGE)[0], all_of_them[2])


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


def test_what_is_kept_is_what_would_be_computed_and_only_what_is_missing_is(tmp_path, monkeypatch):
    plain, kept = extractor(weights="bundled"), extractor(weights="bundled", cache=Cache(str(tmp_path), 1))
    kept(IMAGE[:2])
    computed = []
    compute = FeatureExtractor._compute
    monkeypatch.setattr(
        FeatureExtractor, "_compute", lambda self, image: computed.append(len(image)) or compute(self, image)
    )
    level = kept(IMAGE)[0]
    assert computed == [1]
    torch.testing.assert_close(level, plain(IMAGE)[0], rtol=1e-4, atol=1e-4)  # other batches round otherwise
    assert torch.equal(kept(IMAGE)[0], level)
    assert computed == [1, 3]  # by `plain`, not by `kept`


@pytest.mark.filterwarnings("error")
def test_images_that_differ_at_all_have_other_digests():
    pixels = np.arange(192, dtype=np.uint8).reshape(3, 8, 8)
    divided, multiplied = pixels / np.float32(255), pixels * np.float32(1 / 255)
    assert (divided != multiplied).any()  # the CPU's way and CUDA's
    last_bit, not_finite, huge = divided.copy(), divided.copy(), divided.copy()
    last_bit[0, 3, 3] = np.nextafter(last_bit[0, 3, 3], np.float32(1))
    not_finite[0, 3, 3], huge[0, 3, 3] = np.nan, 1e38
    images = [divided, multiplied, last_bit, not_finite, huge, divided - 1, divided + 1]
    assert len({backbones._source(image) for image in images}) == len(images)
    assert backbones._source(divided) == backbones._source(divided.copy())


def test_nothing_stale_comes_back(tmp_path):
    """One grey value, another size, another weight, layer, pooling or precision: each is another entry."""
    cache = Cache(str(tmp_path), 1)
    ours = extractor(weights="bundled", cache=cache)
    count = lambda: len(list(tmp_path.rglob("*.npy")))  # noqa: E731
    ours(IMAGE[:1])
    seen = count()
    changed = IMAGE[:1].clone()
    changed[0, 0, 0, 0] = (changed[0, 0, 0, 0] * 255 + (1 if changed[0, 0, 0, 0] < 0.5 else -1)) / 255
    float_only = IMAGE[:1] + 1e-6  # no 8-bit image, though it rounds to one
    other = extractor(weights="bundled", cache=cache)
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.001)
    late = extractor(weights="bundled", cache=cache)
    late(IMAGE[:1])
    late.load_state_dict({key: value * 1.001 for key, value in late.state_dict().items()})
    calls = [
        lambda: late(IMAGE[:1]),
        lambda: ours(changed),
        lambda: ours(float_only),
        lambda: ours(IMAGE[:1, :, :48]),
        lambda: ours(IMAGE[:1].transpose(2, 3)),
        lambda: other(IMAGE[:1]),
        lambda: extractor(weights="bundled", layers=("blocks.1",), cache=cache)(IMAGE[:1]),
        lambda: extractor(weights="bundled", pool="max", cache=cache)(IMAGE[:1]),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"layers": ("blocks.9",)},
            r"model\.backbone\.layers: blocks\.9 is no layer of .* has blocks\.0, blocks\.1, blocks\.2",
        ),
        ({"layers": ()}, r"model\.backbone\.layers: give at least one"),
        ({"layers": ("blocks.1", "blocks.1")}, "model.backbone.layers: give at least one layer, and each once"),
        (
            {"name": "resnet18", "weights": "bundled"},
            f"bundled are those of {BUNDLED}; give imagenet or a FILE of timm's weights of resnet18",
        ),
        ({"name": "resnet18.nonsense"}, r"model\.backbone\.name: resnet18\.nonsense cannot be used"),
        ({"name": "resnet81"}, r"model\.backbone\.name: timm .* has no resnet81; did you mean .*resnet18"),
        ({"weights": "nowhere.pth"}, r"model\.backbone\.weights: no file nowhere\.pth; give imagenet, bundled, random"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_read(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        FeatureExtractor(
            **{"name": BUNDLED, "weights": "random", "layers": ("blocks.2",), "pool": "none", "cache": NOTHING}
            | arguments
        )
    assert "\n" not in str(caught.value)


def test_a_file_of_weights_is_read_and_its_first_misfit_named(tmp_path: Path):
    source = timm.create_model("resnet18").state_dict()
    save_file(source, tmp_path / "good.safetensors")
    ours = extractor("resnet18", str(tmp_path / "good.safetensors"), ("layer1",))
    network = timm.create_model("resnet18", features_only=True, out_indices=[1])
    network.load_state_dict(source, strict=False)
    with torch.no_grad():
        (wanted,) = network.eval()((IMAGE - ours.mean) / ours.std)
    torch.testing.assert_close(ours(IMAGE)[0], wanted, rtol=1e-4, atol=1e-4)
    torch.save({k: v for k, v in source.items() if k != "layer1.1.bn1.bias"}, tmp_path / "missing.pth")
    torch.save(source | {"layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)}, tmp_path / "shape.pth")
    (tmp_path / "no.pth").write_bytes(b"no weights")
    for file, said in (
        ("missing", r"no value for layer1\.1\.bn1\.bias"),
        ("shape", r"size mismatch for layer1\.0\.conv1"),
        ("no", ""),
    ):
        with pytest.raises(ConfigError, match=rf"{file}\.pth cannot be used \(.*{said}.*model\.safetensors") as caught:
            extractor("resnet18", str(tmp_path / f"{file}.pth"), ("layer1",))
        assert "\n" not in str(caught.value)
        assert "weights=bundled" in str(caught.value)


def test_a_download_that_fails_says_what_to_fetch_and_that_bundled_exists(monkeypatch):
    def closed(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", timm.create_model)
    ours = FeatureExtractor("resnet18.a1_in1k", "imagenet", ("layer1",), "none", NOTHING)
    monkeypatch.setattr(timm, "create_model", closed)
    with pytest.raises(ConfigError, match=r"no route to the hub.*timm/resnet18\.a1_in1k: model\.safetensors.*bundled"):
        ours.load_pretrained()


def test_weights_are_named_by_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (weights_identity(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert [weights_identity(word) for word in ("imagenet", "random")] == ["imagenet", "random"]
    assert weights_identity("bundled") == weights_identity(str(bundled_weights()))


def test_the_bundled_weights_arrive_in_a_backbone_that_is_trained():
    """Folded or not, what it computes before training is the same."""
    found = []
    for freeze in (True, False):
        torch.manual_seed(0)
        backbone = TrainedBackbone(BUNDLED, "bundled", ["blocks.1", "blocks.4"], freeze).eval()
        random = backbone(IMAGE)[0]
        backbone.load_pretrained()
        found.append(backbone(IMAGE))
        assert not torch.allclose(found[-1][0], random, atol=0.1)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert not found[0][0].requires_grad
    assert found[1][0].requires_grad
