"""PIADE: its sizes, each part against the steps written out, its terms, and what it refuses."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.config.building import built, instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.capsules import Capsules
from anomaly_lab.layers.losses import ssim
from anomaly_lab.methods.piade.pyramid import LongestVector, Pyramid
from anomaly_lab.methods.piade.squeezed import SqueezedBackbone, SqueezeExcitation
from anomaly_lab.types import TrainBatch
from tests.support.features import noise
from tests.support.runs import composed
from tests.support.training import told

IMAGE = noise(4, 3, 64, 64)


def small(*overrides: str):
    torch.manual_seed(0)
    random = ["model.backbone.weights=random", "model.perceptual.weights=random"]
    method = told(built(composed("model=piade_small", "data=demo", *random, *overrides).model))
    method.log_dict = lambda *_, **__: None
    return method


def count(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


def test_the_released_sizes_are_counted_part_by_part():
    with torch.device("meta"):
        method = instantiate(composed("model=piade_released", "data=demo").model, _convert_="all")
    parts = {
        "backbone": (method.encoder.backbone, 23_508_032),
        "squeeze and excitation": (method.encoder.excitations, 696_832),
        "heads": (method.pyramid, 7_872_000),
        "capsules": (method.routing, 491_520),
        "upsampling": (method.upsampling, 4_278_144),
        "decoder": (method.decoder, 114_931),
    }
    assert {name: count(part) for name, (part, _) in parts.items()} == {
        n: size for n, (_, size) in parts.items()
    }
    assert count(method) - count(method.perceptual) == 36_961_459
    assert method.pyramid.capsules == 480
    assert method.decoder.sides == [15, 29, 60, 120]
    assert method.decoder.channels == 640


def test_the_papers_variant_has_a_smaller_network_and_more_capsules():
    with torch.device("meta"):
        method = instantiate(composed("model=piade", "data=demo").model, _convert_="all")
    # 512 channels at 4 x 4, 256 at 2 x 2, 128 and 64 at one place: capsules of 8.
    assert method.pyramid.capsules == (512 * 16 + 256 * 4 + 128 + 64) // 8
    assert method.decoder.channels * 64 == 1024 * 16  # the skip joins 512 + 512 channels of 4 x 4
    assert count(method.encoder.backbone) == 11_176_512


def test_a_channel_is_weighed_by_two_products_of_the_means():
    torch.manual_seed(1)
    part, x = SqueezeExcitation(6, 3).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        for image, found in zip(x.numpy(), part(x).numpy(), strict=True):
            hidden = np.maximum(part.squeeze.weight.numpy() @ image.mean((1, 2)), 0)
            weights = 1 / (1 + np.exp(-(part.excite.weight.numpy() @ hidden)))
            np.testing.assert_allclose(found, image * weights[:, None, None], rtol=1e-12)


def test_the_squeezes_stand_behind_the_steps_that_were_asked_for():
    torch.manual_seed(0)
    backbone = TrainedBackbone("resnet10t", "random", ["layer3"], False).eval()
    encoder = SqueezedBackbone(backbone, ["maxpool", "layer2"], 4, False).eval()
    with torch.no_grad():
        x = IMAGE
        for name, part in backbone.network.items():
            x = part(x)
            if name in {"maxpool", "layer2"}:
                x = encoder.excitations[name](x)
        torch.testing.assert_close(encoder(IMAGE), x)
        plain = SqueezedBackbone(backbone, [], 4, True).eval()
        torch.testing.assert_close(plain(IMAGE), backbone(IMAGE)[0])  # normalised, nothing in between
    assert list(encoder.excitations) == ["maxpool", "layer2"]
    assert set(backbone.network.state_dict()) == set(
        TrainedBackbone("resnet10t", "random", ["layer3"], False).network.state_dict()
    )


def test_the_steps_of_the_bundled_network_compute_what_it_does_as_a_whole():
    backbone = TrainedBackbone("tf_efficientnet_lite0", "random", ["blocks.4"], False).eval()
    with torch.no_grad():
        torch.testing.assert_close(SqueezedBackbone(backbone, [], 4, True)(IMAGE), backbone(IMAGE)[0])


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_a_capsule_holds_neighbouring_channels_of_one_place(variant):
    torch.manual_seed(2)
    pyramid = Pyramid(64, variant, [1, 2, 4, 8], 8, 0.95).double().eval()
    x = torch.randn(2, 64, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = pyramid(x), []
        for head, side in zip(
            pyramid.heads, {"released": (1, 1, 1, 1), "paper": (4, 2, 1, 1)}[variant], strict=True
        ):
            values = head(adaptive_avg_pool2d(x, side))
            wanted += [
                values[:, first : first + 8, row, column]
                for row in range(side)
                for column in range(side)
                for first in range(0, values.shape[1], 8)
            ]
    assert found.shape == (2, pyramid.capsules, 8)
    torch.testing.assert_close(found, torch.stack(wanted, dim=1))


def test_the_norms_of_the_heads_learn_at_the_released_rate():
    pyramid = Pyramid(16, "released", [1, 1, 2, 2], 8, 0.95).train()
    x = noise(3, 4, 4, 16).reshape(-1, 16, 4, 4)
    pyramid(x)
    convolution, norm, _ = pyramid.heads[0]
    seen = convolution(avg_pool2d(x, 4)).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.95 * seen)


def test_the_longest_vector_is_kept_and_it_alone_learns():
    torch.manual_seed(3)
    routing = LongestVector(Capsules(5, 4, 3, 6, 3)).double()
    routing.capsules.weight.data *= 80
    capsules = torch.randn(16, 5, 4, dtype=torch.float64)
    vectors = routing.capsules(capsules)
    kept = routing(capsules)
    lengths = vectors.square().sum(2).sqrt()
    assert len(set(lengths.argmax(1).tolist())) == 3  # each of them is the longest for some
    for vector, candidates, length in zip(kept, vectors, lengths, strict=True):
        torch.testing.assert_close(vector, candidates[length.argmax()])
    (gradient,) = torch.autograd.grad(routing(capsules[:1]).sum(), routing.capsules.weight)
    assert gradient.flatten(1).abs().sum(1).count_nonzero() == 1


def test_the_vector_and_the_skip_are_laid_out_as_eight_by_eight():
    method = small().eval()
    with torch.no_grad():
        x = adaptive_avg_pool2d(method.encoder(IMAGE), 4) if method.encoder(IMAGE).shape[2] >= 4 else None
        assert x is None  # at 64 px the map is 2 x 2, and enlarged
        x = nn.functional.interpolate(method.encoder(IMAGE), (4, 4), mode="bilinear")
        vector = method.routing(method.pyramid(x))
        upsampled = method.upsampling(vector[..., None, None]).reshape(3, 512, 4, 4)
        wanted = method.decoder(torch.cat([x, upsampled], 1).reshape(3, -1), (64, 64))
        torch.testing.assert_close(method.reconstruct(IMAGE), wanted)
        torch.testing.assert_close(method.latents(IMAGE)["vector"], vector)
    without = small("model.skip=false")
    assert without.decoder.channels == 512 * 16 // 64
    assert without.reconstruct(IMAGE).shape == IMAGE.shape


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        ("[mse]", {"mse"}),
        ("[mse,ssim]", {"mse", "ssim"}),
        ("[mse,ssim,perceptual]", {"mse", "ssim", "perceptual"}),
    ],
)
def test_loss_and_score_are_the_sum_of_the_terms(terms, names):
    method = small(f"model.terms={terms}", "model.perceptual_weight=0.5", "model.sigma=0").eval()
    with torch.no_grad():
        picture = method.reconstruct(IMAGE).double()
        image = IMAGE.double()
        each = {
            "mse": (picture - image).square().mean((1, 2, 3)),
            "ssim": -ssim(IMAGE, picture.float(), "unit").mean((1, 2, 3)),
        }
        if "perceptual" in names:
            features = [method.perceptual.features(one.float()).double() for one in (picture, image)]
            each["perceptual"] = 0.5 * (features[0] - features[1]).square().mean((1, 2, 3))
        wanted = sum(each[name].double() for name in names)
        prediction = method(IMAGE)
        loss = method.training_step(
            TrainBatch(1 - IMAGE, IMAGE, torch.zeros(3, 64, 64).bool(), torch.zeros(3).bool()), 0
        )
    torch.testing.assert_close(prediction.score.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.double(), wanted.mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.anomaly_map.mean((1, 2)).double(), wanted, rtol=1e-2, atol=1e-2)
    assert (method.perceptual is None) is ("perceptual" not in names)


def test_frozen_weights_are_neither_trained_nor_saved_twice():
    method = small()
    frozen = {id(weight) for weight in method.perceptual.parameters()}
    trained = {id(w) for group in method.configure_optimizers().param_groups for w in group["params"]}
    assert not frozen & trained
    assert trained | frozen == {id(weight) for weight in method.parameters()}
    storages = [value.data_ptr() for value in method.state_dict().values() if value.numel()]
    assert len(storages) == len(set(storages))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.reductions=[1,2,4]", r"model\.reductions: \[1, 2, 4\]; give 4, one a level"),
        ("model.reductions=[1,2,4,3]", "320 channels by .* are no whole capsules of 8"),
        (
            "model.squeezed=[layer1]",
            "model.squeezed: layer1 is no step of tf_efficientnet_lite0; it has conv_stem",
        ),
        ("model.squeeze_reduction=7", "model.squeeze_reduction: 7 does not divide 24 channels"),
        ("model.terms=[]", r"model\.terms: \[\]; give at least one of mse, ssim, perceptual"),
        ("model.terms=[mse,mse]", "each once"),
        ("model.vectors=0", "model.vectors: 0; give at least 1"),
        ("model.learning_rate=0", "model.learning_rate: 0; give a rate above 0"),
        ("model.perceptual_weight=-1", "model.perceptual_weight: -1; give at least 0"),
        ("model.backbone.name=convnext_atto model.backbone.layers=[stages.3] model.squeezed=[]", None),
    ],
)
def test_values_that_cannot_be_are_named(override, said):
    if said is None:  # another chain of steps is welcome
        assert small(*override.split(" ")).eval()(IMAGE).score.shape == (3,)
        return
    with pytest.raises(InstantiationException) as caught:
        small(override)
    with pytest.raises(ConfigError, match=said):
        raise caught.value.__cause__
