"""The transformer that compares: its levels, its head written out, its windows, its pretrained weights."""

import copy

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.prff.swin_upernet import SwinUPerNet, UPerNetHead
from tests.methods.prff.small import built


def test_swins_levels_have_the_published_shapes():
    narrow = ("embed_dim=8", "num_heads=[1,1,1,1]", "head_channels=4")
    network = built("model=prff", *(f"model.swin_upernet.{value}" for value in narrow)).discriminative
    with torch.no_grad():
        levels = network.swin.forward_intermediates(torch.rand(1, 15, 256, 256), intermediates_only=True)
        logits = network.eval()(torch.rand(1, 15, 256, 256))
    shapes = [tuple(level.shape[1:]) for level in levels]
    assert shapes == [(8, 64, 64), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert logits.shape == (1, 2, 256, 256)


def test_the_pyramid_head_equals_one_written_out():
    torch.manual_seed(0)
    head = UPerNetHead([4, 6, 8, 10], 5, 0.0).eval()
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    levels = [torch.randn(1, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate((4, 6, 8, 10))]

    def up(x, like):
        return nn.Upsample(tuple(like.shape[2:]), mode="bilinear")(x)

    branches = zip((1, 2, 3, 6), head.pooled, strict=True)
    ppm = [up(branch(adaptive_avg_pool2d(levels[3], side)), levels[3]) for side, branch in branches]
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


def test_pretrained_weights_inflate_the_first_convolution(tmp_path, monkeypatch):
    widths = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    torch.manual_seed(1)
    # With a head, as timm's files: older releases take one without for a file of the original code.
    source = SwinTransformer(img_size=64, window_size=2, num_classes=3, **widths)
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
