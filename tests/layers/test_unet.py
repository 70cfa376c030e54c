"""DRAEM's networks: sizes and shapes against the published layer lists, and their precision."""

import pytest
import torch

from anomaly_lab.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork, initialise


def c3(a: int, b: int) -> int:
    """Parameters of a 3x3 convolution with bias and a batch norm."""
    return 9 * a * b + b + 2 * b


def reconstructive_formula(w: int) -> int:
    encoder = [(3, w, w), (w, 2 * w, 2 * w), (2 * w, 4 * w, 4 * w), (4 * w, 8 * w, 8 * w)]
    encoder.append((8 * w, 8 * w, 8 * w))
    decoder = [(8 * w, 8 * w, 4 * w), (4 * w, 4 * w, 2 * w), (2 * w, 2 * w, w), (w, w, w)]
    blocks = sum(c3(a, b) + c3(b, c) for a, b, c in encoder + decoder)
    return blocks + sum(c3(a, a) for a, _, _ in decoder) + 9 * w * 3 + 3


def discriminative_formula(channels: int, w: int) -> int:
    encoder = [(channels, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w)]
    ups = [(8 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)]
    cats = [(16 * w, 8 * w), (12 * w, 4 * w), (6 * w, 2 * w), (3 * w, w), (2 * w, w)]
    blocks = sum(c3(a, b) + c3(b, b) for a, b in encoder + cats)
    return blocks + sum(c3(a, b) for a, b in ups) + 9 * w * 2 + 2


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_papers():
    with torch.device("meta"):
        reconstructive, discriminative = ReconstructiveNetwork(128), DiscriminativeNetwork(6, 64)
    assert parameters(reconstructive) == reconstructive_formula(128)
    assert parameters(discriminative) == discriminative_formula(6, 64)
    assert round(parameters(reconstructive) / 1e6, 2) == 69.05
    assert round(parameters(discriminative) / 1e6, 2) == 28.37


def test_every_level_has_the_published_shape():
    reconstructive, discriminative = ReconstructiveNetwork(4).eval(), DiscriminativeNetwork(6, 4).eval()
    seen = []
    for block in [*reconstructive.encoder, *reconstructive.decoder]:
        block.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    reconstruction, levels = reconstructive(torch.rand(1, 3, 64, 64), range(1, 10))
    assert reconstruction.shape == (1, 3, 64, 64)
    assert [tuple(level.shape[1:]) for level in levels] == seen
    encoder = [(4, 64, 64), (8, 32, 32), (16, 16, 16), (32, 8, 8), (32, 4, 4)]
    assert seen == [*encoder, (16, 8, 8), (8, 16, 16), (4, 32, 32), (4, 64, 64)]
    seen.clear()
    for block in [*discriminative.encoder, *discriminative.decoder]:
        block.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    assert discriminative(torch.rand(1, 6, 64, 64)).shape == (1, 2, 64, 64)
    encoder = [(4, 64, 64), (8, 32, 32), (16, 16, 16), (32, 8, 8), (32, 4, 4), (32, 2, 2)]
    assert seen == [*encoder, (32, 4, 4), (16, 8, 8), (8, 16, 16), (4, 32, 32), (4, 64, 64)]


def test_the_reconstruction_has_no_skip_and_no_output_activation():
    network = ReconstructiveNetwork(4).eval()
    with torch.no_grad():
        network.out.weight.zero_()
        network.out.bias.copy_(torch.tensor([-3.0, 0.0, 5.0]))
    assert network(torch.rand(1, 3, 32, 32))[0].mean((0, 2, 3)).tolist() == [-3.0, 0.0, 5.0]


def test_logits_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        logits = DiscriminativeNetwork(6, 4)(torch.rand(1, 6, 64, 64))
    assert logits.dtype == torch.float32


def test_what_bf16_would_round_away_still_reaches_the_discriminator():
    """Image and reconstruction differ by a part in a thousand, which bf16 cannot tell at values near 1."""
    torch.manual_seed(0)
    first = DiscriminativeNetwork(6, 4).encoder[0][0]
    image = torch.full((1, 3, 16, 16), 0.8984375)  # a value that bf16 has
    pairs = [torch.cat([image + shift, image], dim=1) for shift in (0.0, 1e-3)]
    assert torch.equal(pairs[0].bfloat16(), pairs[1].bfloat16())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        same, other = (first(pair) for pair in pairs)
        assert not torch.equal(same, other)
    with torch.no_grad():
        torch.testing.assert_close(other - same, first(pairs[1]) - first(pairs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ReconstructiveNetwork(4)(torch.rand(1, 3, 32, 32))[0].dtype == torch.float32


def test_initialisation_has_the_codes_spread():
    torch.manual_seed(0)
    network = ReconstructiveNetwork(16).apply(initialise)
    convolutions = torch.cat([p.flatten() for n, p in network.named_parameters() if p.dim() == 4])
    norms = torch.cat([m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert convolutions.mean().abs() < 1e-4
    assert convolutions.std().item() == pytest.approx(0.02, rel=0.01)
    assert norms.mean().item() == pytest.approx(1.0, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.1)
