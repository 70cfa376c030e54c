"""PRFF-AD: with all switches off it is DRAEM; its networks' sizes; its passes against a loop over single images."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

import anomaly_lab
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.prff import Prff, Reduction
from anomaly_lab.nn.swin_upernet import SwinUPerNet, UPerNetHead
from anomaly_lab.types import TrainBatch
from tests.runs import composed, on_tree, ran
from tests.trees import mvtec_tree

OFF = ("model.fusion=false", "model.discriminator=unet", "model.progressive.iterations=1")
AS_DRAEM = (*OFF, "model.learning_rate=2e-3", "model.discriminator_learning_rate=2e-3")


def built(*overrides: str):
    torch.manual_seed(0)
    return instantiate(composed(*overrides, "data=demo").model, _convert_="all")


def batch(size: int = 64, count: int = 2) -> TrainBatch:
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(count, 3, size, size, generator=generator)
    mask = torch.zeros(count, size, size, dtype=torch.bool)
    mask[:, 10:30, 20:40] = True
    return TrainBatch(torch.where(mask[:, None], 1 - clean, clean), clean, mask)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_with_all_switches_off_it_equals_draem_in_weights_losses_and_maps():
    methods = built("model=draem_small"), built("model=prff_small", *AS_DRAEM)
    logged: list[dict[str, torch.Tensor]] = []
    for method in methods:
        method.steps, method.log_dict = 3, logged.append
        training = method.configure_optimizers()
        for index in range(3):
            training["optimizer"].zero_grad()
            method.training_step(batch(), index).backward()
            training["optimizer"].step()
            training["lr_scheduler"]["scheduler"].step()
    draem, prff = (method.eval() for method in methods)
    ours, theirs = prff.state_dict(), draem.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [row["loss/focal"].item() for row in logged[:3]] == [row["loss/focal"].item() for row in logged[3:]]
    with torch.no_grad():
        for one, other in zip(draem(batch().image), prff(batch().image), strict=True):
            assert torch.equal(one, other)


def test_the_same_run_as_draem_from_the_command_line(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = [*on_tree(tree), "data.image_size=64", "trainer=debug", "data.batch_size=2", "synthesis.probability=1"]
    draem, _ = ran(tmp_path / "draem", "model=draem_small", *small)
    prff, _ = ran(tmp_path / "prff", "model=prff_small", *AS_DRAEM, "synthesis=perlin_texture", *small)
    assert prff == draem


@pytest.mark.parametrize(("depths", "millions"), [([2, 2, 18, 2], 86.8), ([2, 2, 42, 4], 187.7)])
def test_parameter_counts_are_those_of_the_published_sizes(depths, millions):
    with torch.device("meta"):
        method = built("model=prff", f"model.swin_upernet.depths={depths}")
    encoder = parameters(method.discriminative.swin) + parameters(method.discriminative.norms)
    assert round(encoder / 1e6, 1) == millions
    assert round(parameters(method.discriminative.head) / 1e6, 1) == 33.2
    assert round(parameters(method.reconstructive) / 1e6, 2) == 69.05


@pytest.mark.parametrize(("channels", "wanted"), [(3, 15), (1, 9)])
def test_the_discriminator_sees_15_channels_or_the_9_of_the_text(channels, wanted):
    with torch.device("meta"):
        method = built("model=prff", f"model.feature_channels={channels}")
    assert method.discriminative.swin.patch_embed.proj.in_channels == wanted
    assert [reduction.conv.in_channels for reduction in method.fusion] == [512, 1024, 128]


def test_swins_levels_have_the_published_shapes():
    narrow = ("embed_dim=8", "num_heads=[1,1,1,1]", "head_channels=4")
    network = built("model=prff", *(f"model.swin_upernet.{value}" for value in narrow)).discriminative
    with torch.no_grad():
        levels = network.swin.forward_intermediates(torch.rand(1, 15, 256, 256), intermediates_only=True)
        logits = network.eval()(torch.rand(1, 15, 256, 256))
    assert [tuple(level.shape[1:]) for level in levels] == [(8, 64, 64), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert logits.shape == (1, 2, 256, 256)


def test_fused_features_are_resized_before_norm_and_activation():
    torch.manual_seed(0)
    reduction = Reduction(4, 2).eval()
    reduction.norm.running_mean.uniform_(-0.5, 0.5)
    level = torch.randn(1, 4, 5, 6)
    small = reduction.conv(level).detach().double().numpy()
    rows, columns = ((np.arange(n * 2) + 0.5) / 2 - 0.5 for n in (5, 6))
    wanted = np.empty((2, 10, 12))
    rows, columns = np.clip(rows, 0, 4), np.clip(columns, 0, 5)
    for c, (i, y), (j, x) in itertools.product(range(2), enumerate(rows), enumerate(columns)):
        (y0, dy), (x0, dx) = (int(y), y % 1), (int(x), x % 1)
        y1, x1 = min(y0 + 1, 4), min(x0 + 1, 5)
        top = small[0, c, y0, x0] * (1 - dx) + small[0, c, y0, x1] * dx
        wanted[c, i, j] = top * (1 - dy) + (small[0, c, y1, x0] * (1 - dx) + small[0, c, y1, x1] * dx) * dy
    mean, scale = reduction.norm.running_mean.numpy(), np.sqrt(1 + reduction.norm.eps)
    wanted = np.maximum((wanted - mean[:, None, None]) / scale, 0)
    ours = reduction(level, torch.empty(1, 3, 10, 12))[0].detach().numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_the_pyramid_head_equals_one_written_out():
    torch.manual_seed(0)
    head = UPerNetHead([4, 6, 8, 10], 5, 0.0).eval()
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    levels = [torch.randn(1, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate((4, 6, 8, 10))]

    def up(x, like):
        return nn.Upsample(tuple(like.shape[2:]), mode="bilinear")(x)

    ppm = [up(branch(adaptive_avg_pool2d(levels[3], s)), levels[3]) for s, branch in zip((1, 2, 3, 6), head.pooled)]  # noqa: B905
    p4 = head.bottleneck(torch.cat([levels[3], *ppm], 1))
    p3 = head.laterals[2](levels[2]) + up(p4, levels[2])
    p2 = head.laterals[1](levels[1]) + up(p3, levels[1])
    p1 = head.laterals[0](levels[0]) + up(p2, levels[0])
    s1, s2, s3 = head.smooth[0](p1), head.smooth[1](p2), head.smooth[2](p3)
    joined = head.joined(torch.cat([s1, up(s2, s1), up(s3, s1), up(p4, s1)], 1))
    wanted = nn.functional.conv2d(joined, head.out.weight, head.out.bias)
    torch.testing.assert_close(head(levels), wanted)


def test_one_image_alone_trains_and_logits_are_float32_under_autocast():
    network = built("model=prff_small").discriminative.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(1, 15, 64, 64))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.fixture(scope="module")
def method() -> Prff:
    """Random weights whose scores differ between images and passes."""
    method = built("model=prff_small")
    for norm in (m for m in method.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    method.progressive = dataclasses.replace(method.progressive, iterations=1)
    with torch.no_grad():
        method.reconstructive.out.weight *= 5
        for _ in range(2):  # gives the batch norms the statistics of these images
            method(images())
    return method.eval()


def images(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, 64, 64, generator=generator) * torch.linspace(0.2, 1, count)[:, None, None, None]


def reference(method: Prff, image: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Progressive reconstruction as methods 2.2 has it, of one image, pass after pass."""
    how = method.progressive

    def one_pass(source, seen, levels_of=None):
        reconstruction, levels = method.reconstructive(source, (3, 5, 8))
        if levels_of is not None:
            _, levels = method.reconstructive(levels_of, (3, 5, 8))
        features = [f(level, seen) for level, f in zip(levels, method.fusion, strict=True)]
        logits = method.discriminative(torch.cat([reconstruction, seen, *features], 1))
        anomaly_map = logits.softmax(1)[:, 1]
        return reconstruction, anomaly_map

    def mu(anomaly_map):
        return nn.functional.avg_pool2d(anomaly_map[None], 11, 1, 5).max().item()

    x, shown = one_pass(image[None], image[None])
    for t in range(2, how.iterations + 1):
        if (how.gate == "each" or (how.gate == "once" and t == 2)) and mu(shown) <= how.threshold:
            break
        before = x
        seen = image[None] if how.compared == "original" else before
        x, latest = one_pass(before, seen, image[None] if how.features == "first" else None)
        shown = torch.maximum(shown, latest) if how.kept == "max" else latest
    return shown[0], mu(shown)


@pytest.mark.parametrize("gate", ["once", "each", "open"])
@pytest.mark.parametrize("compared", ["original", "previous"])
@pytest.mark.parametrize(("features", "kept"), [("last", "last"), ("last", "max"), ("first", "last")])
@pytest.mark.parametrize("iterations", [1, 2, 3])
@torch.no_grad()
def test_passes_equal_a_loop_over_single_images(method, gate, compared, features, kept, iterations):
    first = dataclasses.replace(method.progressive, iterations=1)
    method.progressive = first
    threshold = method(images()).score.sort().values[1:3].mean().item()  # three of five images are above
    method.progressive = dataclasses.replace(
        first,
        iterations=iterations,
        gate=gate,
        compared=compared,
        features=features,
        kept=kept,
        threshold=threshold,
    )
    prediction = method(images())
    for image, anomaly_map, score in zip(images(), *prediction, strict=True):
        wanted_map, wanted_score = reference(method, image)
        # Passes differ by 0.02 to 0.2; rounding, which random networks amplify, by 3e-4.
        torch.testing.assert_close(anomaly_map, wanted_map, atol=2e-3, rtol=0)
        assert score.item() == pytest.approx(wanted_score, abs=2e-3)


@torch.no_grad()
def test_only_images_above_the_threshold_are_computed_again(method):
    method.progressive = dataclasses.replace(method.progressive, iterations=1)
    threshold = method(images()).score.sort().values[2:4].mean().item()  # two of five are above
    method.progressive = dataclasses.replace(method.progressive, iterations=3, gate="once", threshold=threshold)
    sizes: list[int] = []
    hook = method.reconstructive.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    method(images())
    hook.remove()
    assert sizes == [5, 2, 2]


def test_iterations_gate_and_threshold_need_no_second_training(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = ["model=prff_small", *on_tree(tree), "data.image_size=64", "trainer=debug", "data.batch_size=2"]
    _, first = ran(tmp_path, *small, "model.progressive.iterations=1")
    for change in ("iterations=3", "kept=max"):  # the second finds two runs with these weights
        _, path = ran(tmp_path, *small, f"model.progressive.{change}")
        assert path != first
        assert f'"trained_in": "{first.name}"' in (path / "manifest.json").read_text(), change
        assert (path / "model.ckpt").samefile(first / "model.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        *("progressive.iterations=3", "progressive.threshold=0.1", "progressive.gate=open", "progressive.kept=max"),
        *("progressive.compared=previous", "progressive.features=first", "scorer.kernel_size=3", "scorer.reduce=mean"),
    ],
)
def test_what_is_marked_as_evaluation_only_changes_no_weight(change):
    def trained(*overrides: str) -> dict[str, torch.Tensor]:
        method = built("model=prff_small", *overrides)
        method.steps, method.log_dict = 2, lambda *_: None
        optimizer = method.configure_optimizers()["optimizer"]
        for index in range(2):
            optimizer.zero_grad()
            method.training_step(batch(), index).backward()
            optimizer.step()
        return method.state_dict()

    plain, changed = trained(), trained(f"model.{change}")
    assert all(torch.equal(plain[key], changed[key]) for key in plain)


def test_a_broken_off_training_with_dropout_and_two_rates_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    drops = ("model.swin_upernet.drop_path_rate=0.3", "model.swin_upernet.dropout=0.3", "synthesis.probability=1")
    small = ["model=prff_small", *on_tree(tree), "data.image_size=64", "data.batch_size=2", "data.holdout=0", *drops]
    length = ("trainer.max_steps=8", "trainer.save_minutes=0", "evaluation.overlays=0")
    _, whole = ran(tmp_path / "whole", *small, *length)
    step = Prff.training_step

    def breaks(self, batch, index):
        if self.global_step == 5:
            raise RuntimeError("the power went")
        return step(self, batch, index)

    monkeypatch.setattr(Prff, "training_step", breaks)
    with pytest.raises(RuntimeError, match="the power went"):
        ran(tmp_path / "broken", *small, *length)
    monkeypatch.setattr(Prff, "training_step", step)
    assert len(list(tmp_path.glob("broken/runs/*/*/*/*/resume.ckpt"))) == 1
    _, resumed = ran(tmp_path / "broken", *small, *length)
    ours, theirs = (torch.load(path / "model.ckpt", weights_only=True)["state_dict"] for path in (whole, resumed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("size", [96, 128])
@torch.no_grad()
def test_windows_do_not_reach_across_the_border(size):
    """What changes at the top may change what a window away sees, never the bottom."""
    torch.manual_seed(0)
    network = SwinUPerNet(3, 8, [2] * 4, [1] * 4, 4, 0.0, 4, 0.0, "random").eval()
    image = torch.rand(1, 3, size, size)
    other = image.clone()
    other[..., :4, :] += 1
    changed = []
    for x in (image, other):
        levels: list[torch.Tensor] = []
        hook = network.swin.layers[0].register_forward_hook(lambda _m, _i, out, kept=levels: kept.append(out))
        assert network(x).shape == (1, 2, size, size)
        hook.remove()
        changed.append(levels[0])
    rows = (changed[0] - changed[1]).abs().amax((0, 2, 3)).nonzero()[:, 0]
    assert rows.max() < 8


def test_a_second_trained_iteration_sees_the_first_ones_output():
    method = built("model=prff_small", "model.trained_iterations=2", *OFF)
    method.log_dict = lambda *_: None
    sources: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    method.reconstructive.register_forward_pre_hook(lambda _m, inputs: sources.append(inputs[0]))
    method.reconstructive.register_forward_hook(lambda _m, _i, output: outputs.append(output[0]))
    method.training_step(batch(), 0).backward()
    assert torch.equal(sources[0], batch().image)
    assert torch.equal(sources[1], outputs[0].detach())
    assert not sources[1].requires_grad


def test_the_strip_shows_every_pass(method):
    method.progressive = dataclasses.replace(method.progressive, iterations=3, gate="once", compared="original")
    with torch.no_grad():
        panels = method.panels(images())
    assert list(panels) == [f"{name} {n}" for n in (1, 2, 3) for name in ("reconstruction", "map")]
    assert panels["reconstruction 2"].shape == (5, 3, 64, 64)
    assert panels["map 3"].shape == (5, 64, 64)
    with torch.no_grad():
        again, _ = method.reconstructive(panels["reconstruction 1"])
    torch.testing.assert_close(panels["reconstruction 2"], again, atol=2e-3, rtol=0)


def test_pretrained_weights_inflate_the_first_convolution(tmp_path, monkeypatch):
    import timm
    from timm.models.swin_transformer import SwinTransformer

    widths = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    torch.manual_seed(1)
    source = SwinTransformer(img_size=64, window_size=2, num_classes=0, **widths)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    genuine = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **how: genuine(name, **how, **widths))
    network = SwinUPerNet(15, 8, [1] * 4, [1] * 4, 2, 0.0, 4, 0.0, str(tmp_path / "weights.pth"))
    before = copy.deepcopy(network.swin.state_dict())
    network.load_pretrained()
    after = network.swin.state_dict()
    block = "layers.2.blocks.0.attn.qkv.weight"
    assert torch.equal(after[block], source.state_dict()[block])
    assert not torch.equal(after[block], before[block])
    first = source.state_dict()["patch_embed.proj.weight"]
    grey = torch.rand(1, 1, 4, 4)
    theirs = nn.functional.conv2d(grey.expand(1, 3, 4, 4), first)
    ours = nn.functional.conv2d(grey.expand(1, 15, 4, 4), after["patch_embed.proj.weight"])
    torch.testing.assert_close(ours, theirs)  # the same answer to an image that is equal in all channels


def test_missing_and_misfitting_weights_are_one_line(tmp_path):
    arguments = (15, 8, [1] * 4, [1] * 4, 2, 0.0, 4, 0.0, str(tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match=r"model\.swin_upernet\.weights: no file"):
        SwinUPerNet(*arguments)
    torch.save({"a": torch.ones(1)}, tmp_path / "none.pth")
    network = SwinUPerNet(*arguments)
    with pytest.raises(ConfigError, match=r"weights: .*none\.pth cannot be used") as error:
        network.load_pretrained()
    assert "\n" not in str(error.value)


def test_a_run_loads_when_its_pretrained_file_is_gone(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    _, path = ran(tmp_path, "model=prff_small", *on_tree(tree), "data.image_size=64", "trainer=debug")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("weights: random", "weights: /gone.pth"))
    assert anomaly_lab.load(path).method.discriminative.weights == "random"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.feature_layers=[0,5]", "feature_layers"),
        ("model.feature_layers=[]", "feature_layers"),
        ("model.progressive.iterations=0", "iterations"),
        ("model.swin_upernet.depths=[2,2]", "depths"),
        ("model.swin_upernet.num_heads=[3,6,12,24]", "num_heads"),
        ("model.trained_iterations=0", "trained_iterations"),
        ("model.discriminator_learning_rate=-1", "discriminator_learning_rate"),
        ("model.discriminator_weight_decay=-1", "discriminator_weight_decay"),
        ("model.milestones=[80,90]", "milestones"),
        ("model.gamma=0", "gamma"),
        ("model.swin_upernet.dropout=2", "dropout"),
        ("model.swin_upernet.drop_path_rate=-0.5", "drop_path_rate"),
        ("model.swin_upernet.embed_dim=0", "embed_dim"),
    ],
)
def test_bad_values_name_their_key(override, key):
    with pytest.raises(Exception, match=key) as error:
        built("model=prff_small", override)
    assert isinstance(error.value, ConfigError) or isinstance(error.value.__cause__, ConfigError)
