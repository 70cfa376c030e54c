"""The segmenters: sizes as published, geometry and losses against written-out references, labels' use."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import make_layers

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.scorer import Scorer
from anomaly_lab.methods.segmenter import vgg
from anomaly_lab.methods.segmenter.fcn32s import FCN32s
from anomaly_lab.methods.segmenter.method import Segmenter, cross_entropy, dice_loss
from anomaly_lab.methods.segmenter.network import Dropout, SegmentationNetwork
from anomaly_lab.methods.segmenter.segnet import SegNet, unpooled
from anomaly_lab.methods.segmenter.unet import UNet, UNetPlusPlus
from anomaly_lab.methods.segmenter.vgg import VggEncoder
from anomaly_lab.ranks import here
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed

SMALL = {
    "fcn32s": lambda: FCN32s(2, 4, 0.0, "random"),
    "unet": lambda: UNet(2, False, 0.0),
    "unet_plus_plus": lambda: UNetPlusPlus(2, True, 0.0, True),
    "segnet": lambda: SegNet(2, "random"),
}


def segmenter(network: SegmentationNetwork, **changes: float) -> Segmenter:
    values = {"bce_weight": 1.0, "dice_weight": 1.0, "dice_smooth": 1.0, "learning_rate": 1e-2} | changes
    method = Segmenter(network, scorer=Scorer(1, "max"), **values)
    method.log_dict = lambda *_, **__: None
    return method


def batch_of(count: int, side: int = 64) -> TrainBatch:
    """Return a normal image, then anomalies: a bright square with its mask."""
    image = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(4)) / 2
    mask = torch.zeros(count, side, side, dtype=torch.bool)
    mask[1:, 8:24, 16:40] = True
    image = torch.where(mask[:, None], 1 - image, image)
    return TrainBatch(image, image, mask, torch.arange(count) > 0)


def weights_of(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        # VGG-16 without its last layer, and 4096 + 1: two classes would have 134,268,738.
        ("fcn32s", 138_357_544 - 4_097_000 + 4_097),
        ("unet", 31_031_745),
        # The authors' code prints 9,041,601 for one grey channel and one head.
        ("unet_plus_plus", 9_041_601 + 2 * 9 * 32 + 3 * 33),
        ("segnet", 29_443_585),
    ],
)
def test_the_recipes_have_the_published_sizes(recipe, count):
    with torch.device("meta"):
        assert (
            weights_of(instantiate(composed(f"model={recipe}", "data=demo").model, _convert_="all")) == count
        )


def test_a_u_net_of_width_32_has_the_size_that_the_authors_of_u_net_plus_plus_print():
    with torch.device("meta"):
        assert weights_of(UNet(32, False, 0.0)) == 7_759_521 + 2 * 9 * 32


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_the_encoder_lists_the_tensors_of_timms_vgg_in_its_order(name):
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
        network = FCN32s(64, 4096, 0.5, "random") if name == "vgg16" else SegNet(64, "random")
    parts = [network.encoder, network.fc6, network.fc7] if name == "vgg16" else [network.encoder]
    prefixes = ("features.", "pre_logits.") if name == "vgg16" else ("features.",)
    ours = [value.shape for part in parts for value in part.state_dict().values()]
    assert ours == [value.shape for key, value in theirs.items() if key.startswith(prefixes)]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_encoder_computes_what_torchvisions_vgg_does(batch_norm):
    torch.manual_seed(0)
    theirs = make_layers(
        [2, 2, "M", 4, 4, "M", *(3 * [8]), "M", *(3 * [16]), "M", *(3 * [16]), "M"], batch_norm=batch_norm
    )
    ours = VggEncoder(2, batch_norm=batch_norm)
    for mine, given in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        mine.copy_(given)
    image = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(ours(image), theirs(image))


def test_pretrained_weights_arrive_and_what_does_not_fit_is_one_line(monkeypatch, tmp_path):
    source, network = SegNet(2, "random"), SegNet(2, "random")
    named = {f"features.{i}": value for i, value in enumerate(source.encoder.state_dict().values())}
    asked = []

    def created(name, **how):
        asked.append((name, how))
        return SimpleNamespace(state_dict=lambda: named | {"head.fc.weight": torch.zeros(1)})

    monkeypatch.setattr(vgg.timm, "create_model", created)
    network.weights = "imagenet"
    network.load_pretrained()
    for key, value in source.encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[key], value), key
    assert asked == [("vgg16_bn", {"pretrained": True, "pretrained_cfg_overlay": {}})]
    named.popitem()
    with pytest.raises(ConfigError, match=r"model\.network\.weights: imagenet cannot be used .*vgg16_bn"):
        network.load_pretrained()
    network.weights = str(tmp_path / "no_weights")
    (tmp_path / "no_weights").write_text("none")
    with pytest.raises(ConfigError, match=r"no_weights cannot be used .*give model\.network\.weights=FILE"):
        network.load_pretrained()


def centre(plane: Tensor) -> tuple[float, float]:
    rows, columns = (plane.sum(dim=axis) / plane.sum() for axis in (1, 0))
    place = torch.arange(len(rows), dtype=plane.dtype)
    return (rows @ place).item(), (columns @ place).item()


def test_a_logit_of_fcn32s_is_drawn_around_the_middle_of_what_it_sees(monkeypatch):
    """The offset of 19 pixels; averages for maxima, and equal weights, make the network linear."""
    monkeypatch.setattr(nn.functional, "max_pool2d", F.avg_pool2d)
    network = FCN32s(1, 1, 0.0, "random").double()
    for weight in network.parameters():
        nn.init.constant_(weight, 1.0 if weight.dim() > 1 else 0.0)
    seen = []
    network.fc7.register_forward_hook(lambda module, given, made: seen.append(made))
    monkeypatch.setattr(Tensor, "float", lambda x: x)
    image = torch.ones(1, 3, 640, 640, dtype=torch.float64, requires_grad=True)
    network(image)
    cell = (8, 9)
    (gradient,) = torch.autograd.grad(seen[0][0, 0, *cell], image)
    expected = tuple(32 * place + 12.5 for place in cell)
    assert centre(gradient[0, 0]) == pytest.approx(expected)
    handle = network.score.register_forward_hook(
        lambda module, given, made: (
            F.one_hot(torch.tensor(8 * made.shape[3] + 9), made[0].numel()).view_as(made).double()
        )
    )
    drawn = network(image.detach())[0, 0]
    handle.remove()
    assert drawn.shape == (640, 640)
    assert drawn.sum().item() == pytest.approx(32 * 32)
    assert centre(drawn) == pytest.approx(expected)


def test_every_pixel_of_an_fcn32s_map_has_all_the_logits_that_reach_it(monkeypatch):
    """With equal logits it has that value up to the last pixel; the first 13 see one cell only."""
    network = FCN32s(1, 1, 0.0, "random")
    network.score.register_forward_hook(lambda module, given, made: torch.ones_like(made))
    for height, width in ((64, 96), (256, 128)):
        drawn = network(torch.rand(1, 3, height, width))
        torch.testing.assert_close(drawn[..., 13:, 13:], torch.ones(1, 1, height - 13, width - 13))


def block(x: Tensor, weights: list[Tensor]) -> Tensor:
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = F.conv2d(x, kernel, bias, padding=1).relu()
    return x


def test_the_u_net_is_the_one_of_its_figure():
    network = UNet(2, False, 0.5).double().eval()
    image = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    states = [[*part.parameters()] for part in network.encoder]
    x, skips = image, []
    for depth, weights in enumerate(states):
        x = block(F.max_pool2d(x, 2) if depth else x, weights)
        skips.append(x)
    for depth, up, part in zip((3, 2, 1, 0), network.ups, network.decoder, strict=True):
        x = F.conv_transpose2d(x, up.weight, up.bias, stride=2)
        x = block(torch.cat([skips[depth], x], dim=1), [*part.parameters()])
    wanted = F.conv2d(x.float(), network.out.weight.float(), network.out.bias.float())
    torch.testing.assert_close(network.float()(image.float()), wanted, rtol=1e-4, atol=1e-5)


def test_a_head_of_the_u_net_plus_plus_is_a_u_net_of_its_depth():
    network = UNetPlusPlus(2, False, 0.0, True)
    logits = network(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 4, 64, 64)
    for depth in range(4):
        network.zero_grad()
        logits[:, depth].sum().backward(retain_graph=True)
        used = {
            (j, i)
            for j, nodes in enumerate(network.nodes)
            for i, node in enumerate(nodes)
            if node[0].weight.grad is not None and node[0].weight.grad.any()
        }
        assert used == {(j, i) for j in range(5) for i in range(5) if i + j <= depth + 1}, depth


@pytest.mark.filterwarnings("ignore:max_unpooling2d")  # the reference, where equal bits are wanted
def test_values_return_to_where_their_maxima_were():
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    one, other = unpooled(pooled, places), F.max_unpool2d(pooled, places, 2)
    assert torch.equal(one, other)
    weights = torch.randn_like(one)
    gradients = [torch.autograd.grad((y * weights).sum(), pooled, retain_graph=True)[0] for y in (one, other)]
    assert torch.equal(*gradients)


def test_the_losses_are_their_formulas():
    drawn = np.random.default_rng(0)
    logits, target = drawn.normal(0, 3, (2, 3, 5, 4)), drawn.random((2, 3, 5, 4)) < 0.3
    target[1] = False
    bce, dice = np.zeros((2, 3)), np.zeros((2, 3))
    for b, head in np.ndindex(2, 3):
        both = either = 0.0
        for z, t in zip(logits[b, head].flat, target[b, head].flat, strict=True):
            p = 1 / (1 + math.exp(-z))
            bce[b, head] -= math.log(p if t else 1 - p) / 20
            both += p * t
            either += p + t
        dice[b, head] = 1 - (2 * both + 0.5) / (either + 0.5)
    given = torch.from_numpy(logits), torch.from_numpy(target).double()
    np.testing.assert_allclose(cross_entropy(*given), bce, rtol=1e-12)
    np.testing.assert_allclose(dice_loss(*given, smooth=0.5), dice, rtol=1e-12)


def test_an_anomaly_without_ground_truth_teaches_nothing_and_a_normal_image_does():
    method = segmenter(UNet(2, False, 0.0))
    batch = batch_of(3)
    whole = method.training_step(batch, 0)
    hidden = batch._replace(mask=batch.mask & (torch.arange(3) < 2)[:, None, None])
    first_two = TrainBatch(*(values[:2] for values in batch))
    torch.testing.assert_close(method.training_step(hidden, 0), method.training_step(first_two, 0) * 2 / 3)
    assert method.training_step(hidden, 0) < whole
    normal = TrainBatch(*(values[:1] for values in batch))
    assert method.training_step(normal, 0) > 0


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_masks_and_scores_by_logits(name):
    torch.manual_seed(0)
    method = segmenter(SMALL[name]())
    batch = batch_of(3)
    optimizer = method.configure_optimizers()
    first = method.training_step(batch, 0).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = method.training_step(batch, 0)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8 * first
    with torch.no_grad():
        anomaly_map, score = method(batch.image)
    assert torch.equal(score, anomaly_map.amax((1, 2)))
    inside, outside = anomaly_map[batch.mask].mean(), anomaly_map[~batch.mask].mean()
    assert inside > outside + 0.2


def test_scores_beyond_what_a_probability_can_tell_apart_stay_apart():
    class Certain(SegmentationNetwork):
        stride = 1

        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1]

        def load_pretrained(self) -> None: ...

    method = segmenter(Certain())
    image = method.mean + method.std * torch.tensor([30.0, 40.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(method(image).score, torch.tensor([30.0, 40.0]))


def test_dropout_is_drawn_alike_for_any_number_of_ranks():
    drop, x = Dropout(0.25), torch.ones(5, 3, 20, 20)
    torch.manual_seed(3)
    alone = drop(x)
    assert alone.unique().tolist() == pytest.approx([0, 4 / 3])
    assert alone.mean().item() == pytest.approx(1, abs=0.05)
    parts = []
    for start, mine in ((0, 3), (3, 2)):
        torch.manual_seed(3)
        with here.stepping(here.Step(start, mine, 5)):
            parts.append(drop(x[start : start + mine]))
    assert torch.equal(torch.cat(parts), alone)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: UNet(0, False, 0.0), r"model\.network\.width: 0; give at least 1"),
        (lambda: UNetPlusPlus(2, False, 1.0, True), r"model\.network\.dropout: 1\.0 is not a share"),
        (lambda: FCN32s(64, 8, 0.0, "imagenet"), r"imagenet fits no hidden of 8; .*hidden=4096"),
        (lambda: SegNet(8, "imagenet"), r"imagenet fits no width of 8; give model\.network\.weights=random"),
        (lambda: SegNet(64, "nowhere.pt"), r"model\.network\.weights: no file nowhere\.pt"),
        (lambda: segmenter(UNet(1, False, 0.0), dice_smooth=0.0), r"model\.dice_smooth: 0\.0; give a number"),
        (
            lambda: segmenter(UNet(1, False, 0.0), bce_weight=0.0, dice_weight=0.0),
            r"model\.bce_weight=0\.0, model\.dice_weight=0\.0: give none below 0",
        ),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(make, line):
    with pytest.raises(ConfigError, match=line) as caught:
        make()
    assert "\n" not in str(caught.value)
