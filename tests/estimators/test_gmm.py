"""The Gaussian mixture against scikit-learn, scipy and expectation maximisation written out in float64."""

import itertools
import math
import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Theirs
from torch import Tensor

from anomaly_lab.estimators.gmm import Form, GaussianMixture, Mixture, log_joint, maximise

RIDGE = 1e-3
NAMES = {"full": "full", "diagonal": "diag"}
KINDS = pytest.mark.parametrize("kind", ["full", "diagonal"])


def blobs(seed: int, apart: float, count: int = 600, width: int = 5) -> Tensor:
    rng = np.random.default_rng(seed)
    mixing = np.eye(width) + 0.3 * rng.standard_normal((3, width, width)) / width**0.5
    centres, owner = apart * np.eye(3, width), rng.integers(3, size=count)
    noise = np.einsum("nd,nde->ne", rng.standard_normal((count, width)), mixing[owner])
    return torch.from_numpy(centres[owner] + noise).float()


def mixture(
    components: int, kind: Literal["full", "diagonal", "auto"], seed: int = 0, restarts: int = 5
) -> GaussianMixture:
    return GaussianMixture(components, kind, RIDGE, restarts, 300, 1e-7, seed)


def covariances(precision: Tensor) -> np.ndarray:
    """What the factors stand for: (K, D, D) matrices or (K, D) variances."""
    factor = precision.double().numpy()
    return np.linalg.inv(factor.transpose(0, 2, 1) @ factor) if factor.ndim == 3 else factor**-2.0


def test_one_full_component_is_scipys_normal_density() -> None:
    fitted, queries = blobs(0, 3), 5 * blobs(1, 1, 50)
    covariance = np.cov(fitted.double().numpy(), rowvar=False, ddof=0) + RIDGE * np.eye(5)
    density = multivariate_normal(fitted.double().numpy().mean(axis=0), covariance)
    scores = mixture(1, "full").fit(fitted).score(queries)
    np.testing.assert_allclose(scores.numpy(), -density.logpdf(queries.double().numpy()), rtol=1e-5)


@KINDS
def test_blobs_apart_are_fitted_as_by_scikit_learn(kind: Form) -> None:
    fitted, queries = blobs(0, 60), blobs(1, 60, 80)
    ours = mixture(3, kind).fit(fitted)
    theirs = Theirs(3, covariance_type=NAMES[kind], reg_covar=RIDGE, tol=1e-9, random_state=0)
    theirs.fit(fitted.double())
    order, other = ours.means_[:, :3].argmax(dim=0), theirs.means_[:, :3].argmax(axis=0)
    np.testing.assert_allclose(ours.weights_[order].numpy(), theirs.weights_[other], rtol=1e-4)
    np.testing.assert_allclose(ours.means_[order].numpy(), theirs.means_[other], rtol=1e-4, atol=1e-4)
    found, wanted = covariances(ours.precision_[order]), theirs.covariances_[other]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    scores = -theirs.score_samples(queries.double())
    np.testing.assert_allclose(ours.score(queries).numpy(), scores, rtol=1e-4)


@KINDS
def test_many_steps_from_one_start_are_scikit_learns(kind: Form) -> None:
    fitted = blobs(0, 2)
    precision = torch.eye(5).expand(3, 5, 5) if kind == "full" else torch.ones(3, 5)
    state = Mixture(torch.tensor([0.2, 0.3, 0.5]), fitted[:3], precision)
    theirs = Theirs(
        3,
        covariance_type=NAMES[kind],
        reg_covar=RIDGE,
        tol=0,
        max_iter=12,
        weights_init=state.weights.double().numpy() / state.weights.double().sum().item(),
        means_init=state.means.double().numpy(),
        precisions_init=precision.double().numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(fitted.double())
    for _ in range(12):
        state = maximise(fitted, log_joint(fitted, state).softmax(dim=1), kind, RIDGE)
    np.testing.assert_allclose(state.weights.numpy(), theirs.weights_, rtol=1e-4)
    np.testing.assert_allclose(state.means.numpy(), theirs.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(covariances(state.precision), theirs.covariances_, rtol=1e-4, atol=1e-4)
    scores = log_joint(fitted, state).logsumexp(dim=1)
    np.testing.assert_allclose(scores.numpy(), theirs.score_samples(fitted.double()), rtol=1e-4)


@KINDS
def test_one_step_is_the_formulae_written_out(kind: Form) -> None:
    fitted = blobs(2, 2, 40, 3)
    shares = np.random.default_rng(0).dirichlet([1, 1], size=40)
    state = maximise(fitted, torch.from_numpy(shares).float(), kind, RIDGE)
    x, joint = fitted.double().numpy(), np.empty((40, 2))
    for k in range(2):
        mass = sum(shares[n, k] for n in range(40))
        mean = sum(shares[n, k] * x[n] for n in range(40)) / mass
        covariance = sum(shares[n, k] * np.outer(x[n] - mean, x[n] - mean) for n in range(40)) / mass
        covariance = (covariance if kind == "full" else np.diag(np.diag(covariance))) + RIDGE * np.eye(3)
        for n in range(40):
            distance = (x[n] - mean) @ np.linalg.inv(covariance) @ (x[n] - mean)
            volume = math.log((2 * math.pi) ** 3 * np.linalg.det(covariance))
            joint[n, k] = math.log(mass / 40) - 0.5 * (volume + distance)
    np.testing.assert_allclose(log_joint(fitted, state).numpy(), joint, rtol=1e-4)


def test_auto_takes_full_covariances_above_ten_vectors_per_dimension() -> None:
    shapes = [mixture(1, "auto").fit(blobs(0, 1, count)).precision_.ndim for count in (50, 51)]
    assert shapes == [2, 3]


def test_restarts_keep_the_most_likely() -> None:
    grid = torch.tensor(list(itertools.product([0.0, 8.0, 20.0], [0.0, 9.0])))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 40, 2)))
    fitted = (grid[:, None] + noise).flatten(0, 1)

    def cost(seed: int, restarts: int) -> Tensor:
        return mixture(6, "full", seed, restarts).fit(fitted).score(fitted).mean()

    costs = torch.stack([torch.stack([cost(seed, restarts) for restarts in (1, 8)]) for seed in range(4)])
    assert (costs[:, 1] <= costs[:, 0] + 1e-4).all()
    assert (costs[:, 1] < costs[:, 0] - 0.01).any()
    assert costs[:, 1].max() - costs[:, 1].min() < 0.01


def test_it_climbs_until_the_gain_is_small_or_the_steps_are_spent() -> None:
    fitted = blobs(0, 2)
    stops = [(1, 1e-7), (300, 10.0), (300, 1e-3), (300, 1e-7)]  # the first two take one step
    fits = [GaussianMixture(3, "full", RIDGE, 1, most, least, 0).fit(fitted) for most, least in stops]
    costs = [one.score(fitted).mean() for one in fits]
    assert costs[1] > costs[2] + 1e-3 > costs[3] + 1e-3
    assert costs[0] == pytest.approx(costs[1].item(), rel=1e-6)


def test_the_seed_alone_decides() -> None:
    fitted, state = blobs(0, 2), torch.get_rng_state()
    first, again, other = (mixture(4, "full", seed, 1).fit(fitted).means_ for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_vectors_than_components_cap_these_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    fitted = blobs(0, 5, 4)
    estimator = mixture(7, "full").fit(fitted)
    assert len(estimator.weights_) == 4
    assert estimator.score(fitted).isfinite().all()
    (message,) = caplog.messages
    assert "7" in message
    assert "4" in message


def degenerate() -> dict[str, Tensor]:
    constant = blobs(0, 2, 80)
    constant[:, 1], constant[:, 3] = 0.1, 1000.0
    return {
        "constant features": constant,
        "equal vectors": torch.full((30, 5), 0.3),
        "doubles": blobs(0, 2, 2).repeat(20, 1),
        "fewer than dimensions": blobs(0, 2, 6, 40),
        "large": 1e4 * blobs(0, 2, 25, 30),
        "one outlier": torch.cat([blobs(0, 2, 50), torch.full((1, 5), 1e5)]),
    }


@KINDS
@pytest.mark.parametrize("case", list(degenerate()))
def test_degenerate_data_give_no_nan(case: str, kind: Form) -> None:
    fitted = degenerate()[case]
    estimator = mixture(5, kind).fit(fitted)
    near, far = estimator.score(fitted), estimator.score(fitted + 10 * fitted.abs().max())
    assert near.isfinite().all()
    assert far.isfinite().all()
    assert far.min() > near.max()
    assert estimator.weights_.sum().item() == pytest.approx(1, abs=1e-5)


@KINDS
def test_an_empty_component_is_inert(kind: Form) -> None:
    fitted = blobs(0, 2, 60)
    shares = torch.nn.functional.one_hot(torch.zeros(60, dtype=torch.int64), 2).float()
    alone, beside = (maximise(fitted, part, kind, RIDGE) for part in (shares[:, :1], shares))
    queries = torch.cat([fitted, torch.zeros(1, 5)])
    scores = [log_joint(queries, state).logsumexp(dim=1) for state in (alone, beside)]
    torch.testing.assert_close(scores[0], scores[1])
