"""VT-ADL's networks against what they are on paper: counts, shapes, and loops in NumPy's float64."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf, log_softmax, softmax
from scipy.stats import multivariate_normal

from anomaly_lab.nn import mixture_density
from anomaly_lab.nn.capsules import Capsules, SquashedLinear, squash
from anomaly_lab.nn.mixture_density import MixtureDensity
from anomaly_lab.nn.patch_transformer import PatchTransformer
from anomaly_lab.nn.vector_decoder import VectorDecoder

RELEASED = [[16, 3, 2, 1], [32, 9, 3, 1], [32, 7, 5, 1], [16, 9, 2, 0], [8, 6, 1, 0], [3, 11, 1, 0]]


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_paper_sizes_have_the_papers_parameters():
    with torch.device("meta"):
        encoder = PatchTransformer(512, 64, 512, 6, 8, 1024, "dim")
        mixtures = [MixtureDensity(512, k, "logsumexp", "softplus_with_floor", 0.1, "positive") for k in (10, 150)]
        capsules = Capsules(4096, 8, 1, 512, 3)
    patches, places = 12288 * 512 + 512, (64 + 1 + 1) * 512
    block = 2 * 2 * 512 + 512 * 3 * 512 + (512 * 512 + 512) + (512 * 1024 + 1024) + (1024 * 512 + 512)
    assert count(encoder) == patches + places + 6 * block == 18_933_248
    assert [count(mixture) for mixture in mixtures] == [5_248_000, 78_720_000]
    assert capsules.weight.shape == (1, 4096, 512, 8)


def test_the_released_decoder_reaches_512_pixels_by_itself():
    decoder, seen = VectorDecoder(512, 8, RELEASED).eval(), []
    for part in [*decoder.hidden, decoder.out]:
        if isinstance(part, torch.nn.ConvTranspose2d):
            part.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert decoder(torch.zeros(1, 512), (512, 512)).shape == (1, 3, 512, 512)
    assert seen == [(16, 15, 15), (32, 49, 49), (32, 245, 245), (16, 497, 497), (8, 502, 502), (3, 512, 512)]
    assert decoder.sides == [15, 49, 245, 497, 502, 512]


def test_the_decoder_resizes_only_what_its_layers_miss():
    torch.manual_seed(0)
    decoder = VectorDecoder(32, 2, [[6, 4, 2, 1], [3, 4, 2, 1]]).eval()
    vector = torch.randn(3, 32)
    with torch.no_grad():
        plain = decoder.out(decoder.hidden(vector.view(3, 8, 2, 2))).tanh()
        assert torch.equal(decoder(vector, (8, 8)), plain)
        assert decoder(vector, (12, 4)).shape == (3, 3, 12, 4)
        larger = decoder(vector, (16, 16))
        wanted = torch.nn.functional.interpolate(plain.double(), (16, 16), mode="bilinear")
    torch.testing.assert_close(larger.double(), wanted, atol=1e-6, rtol=0)


def normed(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (norm.weight, norm.bias))
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * weight + bias


def mapped(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    bias = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    return x @ layer.weight.detach().double().flatten(1).numpy().T + bias


@pytest.mark.parametrize("scale", ["dim", "head_dim"])
def test_the_encoder_is_the_papers_written_out(scale):
    torch.manual_seed(1)
    encoder = PatchTransformer([8, 12], 4, 6, 2, 3, 10, scale)
    for p in encoder.parameters():  # biases and norms that could hide a mistake are not 0 and 1
        p.data += 0.1 * torch.randn_like(p)
    image = torch.rand(2, 3, 8, 12)
    pixels, found = image.double().numpy(), encoder(image).detach().numpy()
    for b in range(2):
        patches = [pixels[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].ravel() for i in range(2) for j in range(3)]
        x = np.concatenate([encoder.class_token[0].detach().numpy(), mapped(np.array(patches), encoder.embed)])
        x = x + encoder.place[0].detach().double().numpy()
        for block in encoder.blocks:
            query, key, value = np.split(mapped(normed(x, block.attention_norm), block.qkv), 3, axis=1)
            heads = []
            for h in range(3):
                own = slice(2 * h, 2 * h + 2)
                products = query[:, own] @ key[:, own].T / math.sqrt(6 if scale == "dim" else 2)
                heads.append(softmax(products, axis=1) @ value[:, own])
            x = x + mapped(np.concatenate(heads, axis=1), block.out)
            hidden = mapped(normed(x, block.mlp_norm), block.mlp[0])
            x = x + mapped(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, block.mlp[2])
        np.testing.assert_allclose(found[b], x[1:], atol=2e-5)


def test_the_encoder_starts_as_released():
    torch.manual_seed(2)
    encoder = PatchTransformer(64, 16, 256, 1, 4, 128, "dim")
    layers = [encoder.embed, encoder.blocks[0].qkv, encoder.blocks[0].mlp[2]]
    for layer, inputs in zip(layers, (768, 256, 128), strict=True):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
    assert encoder.embed.bias.abs().max() == 0
    assert encoder.place.std().item() == pytest.approx(1, rel=0.05)


def squashed(vector: np.ndarray) -> np.ndarray:
    length = math.sqrt(sum(entry**2 for entry in vector))
    return vector / length * length**2 / (1 + length**2)


def routed(weight: np.ndarray, capsules: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image's (O, P) output and (O, I) coupling, one capsule at a time."""
    outputs, inputs = weight.shape[:2]
    prediction = {(o, i): weight[o, i] @ capsules[i] for o in range(outputs) for i in range(inputs)}
    logits = np.zeros((outputs, inputs))
    for iteration in range(iterations):
        coupling = np.array([softmax(logits[:, i]) for i in range(inputs)]).T
        out = [squashed(sum(coupling[o, i] * prediction[o, i] for i in range(inputs))) for o in range(outputs)]
        if iteration < iterations - 1:
            for (o, i), vector in prediction.items():
                logits[o, i] += out[o] @ vector
    return np.array(out), coupling


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_routing_is_the_algorithm_one_capsule_at_a_time(outputs, iterations):
    torch.manual_seed(3)
    layer = Capsules(5, 4, outputs, 6, iterations).double()
    layer.weight.data *= 80  # so that agreement moves the coupling
    capsules = torch.randn(2, 5, 4, dtype=torch.float64)
    found = layer(capsules)
    for b in range(2):
        wanted, coupling = routed(layer.weight.detach().numpy(), capsules[b].numpy(), iterations)
        np.testing.assert_allclose(found[b].detach(), wanted, rtol=1e-10)
        assert iterations == 1 or outputs == 1 or np.ptp(coupling) > 0.2


def test_gradients_see_the_last_coupling_as_given():
    torch.manual_seed(4)
    layer = Capsules(5, 4, 3, 6, 3).double()
    layer.weight.data *= 80
    capsules = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    aim = torch.randn(1, 3, 6, dtype=torch.float64)
    found = torch.autograd.grad((layer(capsules) * aim).sum(), [capsules, layer.weight])
    coupling = torch.tensor(routed(layer.weight.detach().numpy(), capsules[0].detach().numpy(), 3)[1])
    total = (coupling[..., None] * (layer.weight @ capsules[0, :, :, None])[..., 0]).sum(1)
    length = total.square().sum(-1, keepdim=True).sqrt()
    wanted = torch.autograd.grad((total * length / (1 + length**2) * aim[0]).sum(), [capsules, layer.weight])
    torch.testing.assert_close(found, wanted)


def test_one_output_capsule_is_a_squashed_linear_map_whatever_the_iterations():
    torch.manual_seed(5)
    tokens = torch.randn(3, 4, 16, dtype=torch.float64, requires_grad=True)
    linear, capsules = SquashedLinear(64, 7).double(), Capsules(16, 4, 1, 7, 3).double()
    linear.weight.data = capsules.weight.data[0].permute(1, 0, 2).flatten(1).clone()
    aim = torch.randn(3, 7, dtype=torch.float64)
    one, other = capsules(tokens.reshape(3, 16, 4))[:, 0], linear(tokens.flatten(1))
    torch.testing.assert_close(one, other)
    first = torch.autograd.grad((one * aim).sum(), [tokens, capsules.weight])
    second = torch.autograd.grad((other * aim).sum(), [tokens, linear.weight])
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[1][0].permute(1, 0, 2).flatten(1), second[1])


def test_squashing_nothing_has_a_gradient():
    vector = torch.zeros(2, 3, requires_grad=True)
    squash(vector).sum().backward()
    assert vector.grad.isfinite().all()


KINDS = [(a, b) for a in ("expected", "logsumexp") for b in ("softplus_as_log", "softplus_with_floor")]


def density(likelihood: str, variance: str, clamp: str = "positive", dim: int = 4, k: int = 5) -> MixtureDensity:
    torch.manual_seed(6)
    return MixtureDensity(dim, k, likelihood, variance, 0.02, clamp)


def written_out(mixture: MixtureDensity, token: np.ndarray) -> float:
    """One token's loss: the released formula, or SciPy's normal distribution."""
    weights, means, spreads = (p.detach().double().numpy() for p in mixture.parameters())
    seen = np.maximum(token, 2.0**-52) if mixture.clamp == "positive" else token
    log_share = log_softmax(weights @ seen)
    total, density = 0.0, 0.0
    for k in range(len(weights)):
        mean, spread = means[k] @ seen, np.log1p(np.exp(spreads[k] @ seen))
        variance = np.exp(spread) if mixture.variance == "softplus_as_log" else spread + 0.02
        density += np.exp(log_share[k]) * multivariate_normal.pdf(token, mean, np.diag(variance))
        inside = sum(math.log(v) + (x - m) ** 2 / v for x, m, v in zip(token, mean, variance, strict=True))
        total += np.exp(log_share[k]) * 0.5 * (math.log(2 * math.pi) + inside)
    return total if mixture.likelihood == "expected" else -math.log(density)


@pytest.mark.parametrize("clamp", ["positive", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_is_its_formula(kind, clamp, monkeypatch):
    monkeypatch.setattr(mixture_density, "VALUES", 2 * 24)  # two of five Gaussians at a time
    mixture = density(*kind, clamp)
    tokens = torch.randn(2, 3, 4)
    found = mixture(tokens)
    assert found.dtype == torch.float32
    wanted = [[written_out(mixture, token) for token in image] for image in tokens.double().numpy()]
    np.testing.assert_allclose(found.detach(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_are_those_of_the_formula(kind, monkeypatch):
    monkeypatch.setattr(mixture_density, "VALUES", 2 * 24)
    mixture = density(*kind).double()
    tokens = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = dict(mixture.named_parameters())

    def apart(tokens, *values):
        return torch.func.functional_call(mixture, dict(zip(parameters, values, strict=True)), tokens)

    assert torch.autograd.gradcheck(apart, (tokens, *parameters.values()))
    chunked = torch.autograd.grad(mixture(tokens).sum(), [tokens, *parameters.values()])
    monkeypatch.setattr(mixture_density, "VALUES", 2**22)
    whole = torch.autograd.grad(mixture(tokens).sum(), [tokens, *parameters.values()])
    torch.testing.assert_close(chunked, whole)


@pytest.mark.parametrize("variance", ["softplus_as_log", "softplus_with_floor"])
def test_the_released_loss_is_an_upper_bound_of_the_texts(variance):
    bound, exact = density("expected", variance), density("logsumexp", variance)
    tokens = torch.randn(3, 7, 4)
    missing = 0.5 * 3 * math.log(2 * math.pi)  # its constant enters once instead of four times
    assert (bound(tokens) + missing > exact(tokens)).all()


def test_a_mean_that_hits_is_no_error_however_large_the_token():
    """With the square expanded, float32 would be off by about 1."""
    mixture = density("expected", "softplus_as_log", "none")
    mixture.means.data[:] = torch.eye(4)
    mixture.spreads.data[:] = 0
    found = mixture(1e4 * torch.randn(2, 3, 4))
    np.testing.assert_allclose(found.detach(), 0.5 * (math.log(2 * math.pi) + 4 * math.log(2)), rtol=1e-6)


def test_the_likelihood_stays_in_float32_under_mixed_precision():
    mixture, tokens = density("logsumexp", "softplus_with_floor"), torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (tokens @ tokens.mT).dtype == torch.bfloat16  # what is computed outside is rounded
        inside = mixture(tokens)
    assert torch.equal(inside, mixture(tokens))


def test_training_keeps_no_tensor_of_all_means(monkeypatch):
    monkeypatch.setattr(mixture_density, "VALUES", 4 * 6 * 32)
    mixture = density("logsumexp", "softplus_with_floor", dim=32, k=40)
    own = {p.untyped_storage().data_ptr() for p in mixture.parameters()}
    kept = []

    def keep(tensor):
        kept.append(0 if tensor.untyped_storage().data_ptr() in own else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mixture(torch.randn(2, 3, 32))
    assert 0 < sum(kept) < 6 * 32 * 40
