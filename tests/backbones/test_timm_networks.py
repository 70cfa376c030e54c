"""Networks of timm: the layers asked for, whatever their kind, and those that are refused."""

import pytest
import timm
import torch

from anomaly_lab.backbones.timm_networks import LAST, random_frozen, sketched
from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.backbones.weights import BUNDLED, bundled
from anomaly_lab.errors import ConfigError
from tests.support.features import extractor, noise

IMAGE = noise(0, 3, 64, 48)


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

    def keep(index: int) -> None:
        network.blocks[index].register_forward_hook(lambda _m, _i, out: kept.update({index: out}))

    keep(1)
    keep(4)
    with torch.no_grad():
        network.eval()((IMAGE - 0.5) / 0.5)
    for level, index in zip(ours(IMAGE), (4, 1), strict=True):
        # Norms are folded: rounding differs.
        torch.testing.assert_close(level, kept[index], rtol=1e-4, atol=1e-4)
    assert (ours.channels, ours.strides) == ([112, 24], [16, 4])


def test_a_network_whose_maps_have_channels_last_is_refused():
    name, layers = "swin_tiny_patch4_window7_224", ["layers.0"]
    said = rf"^model\.backbone\.name: {name} gives maps of \(56, 56, 96\) for 96 ch"
    for ours in (
        extractor(name, layers=layers, pool="avg"),
        TrainedBackbone(name, "random", layers, freeze=True),
    ):
        with pytest.raises(ConfigError, match=said):
            ours.check_size(224, 224)


@pytest.mark.parametrize(
    "name", ["hrnet_w18_small", "hardcorenas_a", "vgg11", "mixer_s32_224", "convnext_atto"]
)
def test_networks_of_every_kind_with_channels_first_are_taken(name):
    with torch.device("meta"):
        known = [level["module"] for level in sketched(name)[0].feature_info.info]
        ours = TrainedBackbone(name, "random", [known[2], known[1]], freeze=False)
        ours.check_size(224, 224)
        maps = ours.eval()(torch.empty(1, 3, 224, 224))
    assert [level.shape[1] for level in maps] == ours.channels
    assert [224 // level.shape[2] for level in maps] == ours.strides


@pytest.mark.parametrize(
    ("name", "layer"),
    [(BUNDLED, "blocks.2"), ("resnet18", "layer2"), ("convnext_atto", "stages.1"), ("vgg11", "features.4")],
)
def test_the_copy_that_a_further_cell_gets_is_the_network_that_drawing_gives_and_its_own(name, layer):
    def drawn():
        torch.manual_seed(5)
        network = random_frozen(name, (layer,))
        return network, network(IMAGE)[-1], torch.get_rng_state()

    first, level, after = drawn()
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert len(LAST) == 1
    copied, same, after_copy = drawn()
    assert torch.equal(same, level)
    assert torch.equal(after_copy, after)
    assert not any(weight.requires_grad for weight in copied.parameters())
    assert not copied.training
    torch.manual_seed(6)
    assert not torch.equal(random_frozen(name, (layer,))(IMAGE)[-1], level)


def test_a_network_of_another_device_is_none_of_the_kept_ones():
    torch.manual_seed(5)
    random_frozen("resnet18", ("layer1",))
    torch.manual_seed(5)
    with torch.device("meta"):
        assert next(random_frozen("resnet18", ("layer1",)).parameters()).is_meta
