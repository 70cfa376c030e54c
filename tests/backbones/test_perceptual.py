"""The perceptual loss: the papers' layers of VGG-11, what is frozen, and how a network is cut."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import mse_loss

from anomaly_lab.backbones.perceptual import PerceptualLoss
from anomaly_lab.backbones.weights import BUNDLED, bundled
from anomaly_lab.errors import ConfigError
from tests.support.features import noise

ONE, OTHER = noise(1, 3, 32, 40), noise(2, 3, 32, 40)


@pytest.fixture(scope="module")
def papers() -> tuple[PerceptualLoss, nn.Sequential]:
    """Return the loss on VGG-11, and the papers' four steps with the same weights, in float64."""
    torch.manual_seed(0)
    loss = PerceptualLoss("vgg11", "random", "features.3")
    steps = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 128, 3, padding=1)
    )
    named = {f"{key}": loss.network.get_submodule(f"features_{key}") for key in ("0", "3")}
    for key, part in named.items():
        steps.get_submodule(key).load_state_dict(part.state_dict())
    return loss, steps.double()


def test_it_is_the_mean_squared_error_of_four_steps_of_vgg_11_on_values_as_they_are(papers):
    loss, steps = papers
    with torch.no_grad():
        wanted = steps(ONE.double()), steps(OTHER.double())
        found = loss(ONE, OTHER)
    assert found.shape == (3, 16, 20)
    assert found.dtype == torch.float32
    assert wanted[0].min() < 0  # no ReLU behind the last
    torch.testing.assert_close(found.double(), (wanted[0] - wanted[1]).square().mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.mean().double(), mse_loss(*wanted), rtol=1e-4, atol=0)
    assert sum(weight.numel() for weight in loss.parameters()) == 3 * 64 * 9 + 64 + 64 * 128 * 9 + 128


def test_gradients_reach_the_picture_and_no_weight(papers):
    loss, steps = papers
    picture = ONE.clone().requires_grad_()
    loss.train()(picture, OTHER).mean().backward()
    double = ONE.double().requires_grad_()
    mse_loss(steps(double), steps(OTHER.double())).backward()
    torch.testing.assert_close(picture.grad.double(), double.grad, rtol=1e-3, atol=1e-9)
    assert not any(weight.requires_grad for weight in loss.parameters())


def test_the_bundled_network_computes_what_timm_does_up_to_a_stage():
    loss = PerceptualLoss(BUNDLED, "bundled", "blocks.0")
    loss.load_pretrained()
    whole = timm.create_model(BUNDLED).eval()
    whole.load_state_dict(bundled())
    with torch.no_grad():
        wanted = whole.blocks[0](whole.bn1(whole.conv_stem(ONE)))
        torch.testing.assert_close(loss.features(ONE), wanted, rtol=1e-3, atol=1e-3)
    loss.train()
    assert not any(part.training for part in loss.modules())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("vgg11", "random", "features.99"),
            "model.perceptual.layer: features.99 is no layer of vgg11; it has",
        ),
        (
            (BUNDLED, "random", "conv_stem"),
            "model.perceptual.layer: conv_stem is no layer of tf_eff.*blocks.0",
        ),
        (("vgg", "random", "features.3"), "model.perceptual.name: timm .* has no vgg; did you mean vgg"),
        (("vgg11", "bundled", "features.3"), "model.perceptual.weights: bundled are those of"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(arguments, said):
    with pytest.raises(ConfigError, match=said):
        PerceptualLoss(*arguments)


def test_a_file_that_holds_no_weights_is_named_with_the_key(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(ConfigError, match=r"model\.perceptual\.weights: .*weights\.pth cannot be used"):
        PerceptualLoss("resnet10t", str(file), "maxpool").load_pretrained()


def test_timms_own_file_arrives_in_a_network_that_is_cut_at_any_step(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("resnet10t").eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    loss = PerceptualLoss("resnet10t", str(tmp_path / "weights.pth"), "maxpool")
    loss.load_pretrained()
    with torch.no_grad():
        wanted = source.maxpool(source.act1(source.bn1(source.conv1(ONE))))
        torch.testing.assert_close(loss.features(ONE), wanted, rtol=1e-3, atol=1e-5)
