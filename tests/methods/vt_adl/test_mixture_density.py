"""The mixture density against its formulae and SciPy; its gradients, bounds, precision and memory."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from anomaly_lab.methods.vt_adl import mixture_density
from anomaly_lab.methods.vt_adl.mixture_density import MixtureDensity

KINDS = [(a, b) for a in ("expected", "logsumexp") for b in ("softplus_as_log", "softplus_with_floor")]


def test_the_papers_sizes_have_the_papers_parameters():
    how = ("logsumexp", "softplus_with_floor", 0.1, "positive")
    with torch.device("meta"):
        mixtures = [MixtureDensity(512, k, *how) for k in (10, 150)]
    assert [sum(p.numel() for p in m.parameters()) for m in mixtures] == [5_248_000, 78_720_000]


def density(
    likelihood: str, variance: str, clamp: str = "positive", dim: int = 4, k: int = 5
) -> MixtureDensity:
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
