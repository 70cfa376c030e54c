"""A Gaussian mixture fitted by expectation maximisation (Dempster, Laird, Rubin, 1977); scores -log p(x)."""

import logging
import math
from typing import Literal, NamedTuple, Self, final

import torch
from torch import Generator, Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import Estimator, whitening
from anomaly_lab.estimators.knn import nearest

log = logging.getLogger(__name__)

Form = Literal["full", "diagonal"]

LLOYD_STEPS = 10  # of k-means before EM takes over
LOG_TWO_PI = math.log(2 * math.pi)
TINY = 1e-30  # keeps an empty component's mean, and the draw among equal vectors, defined


class Mixture(NamedTuple):
    """The parameters of K Gaussians; the precision is a factor of the inverse covariance."""

    weights: Tensor  # (K,), they sum to 1; 0 for an empty component, which then never wins a vector back
    means: Tensor  # (K, D)
    # (K, D, D) full: W with W^T W the inverse covariance; (K, D) diagonal: 1 / standard deviation
    precision: Tensor


@final
class GaussianMixture(Estimator):
    """K Gaussians with ``full`` or ``diagonal`` covariances; ``auto``: full above 10 vectors per dimension.

    The best by likelihood of ``restarts`` from k-means++; each ends after ``iterations`` or as soon as the
    mean log-likelihood gains less than ``tolerance``. ``ridge`` is added to every variance; to a full one at
    least 1e-6 of its trace, which float32 needs. One full component is the Mahalanobis detector.
    """

    weights_: Tensor
    means_: Tensor
    precision_: Tensor

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        components: int,
        covariance: Literal["full", "diagonal", "auto"],
        ridge: float,
        restarts: int,
        iterations: int,
        tolerance: float,
        seed: int,
    ) -> None:
        super().__init__()
        for key, value in {"components": components, "restarts": restarts, "iterations": iterations}.items():
            if value < 1:
                raise ConfigError(f"model.estimator.{key}: must be at least 1, not {value}")
        if ridge <= 0:
            raise ConfigError(
                f"model.estimator.ridge: must be above 0, not {ridge}; a constant feature needs it"
            )
        self.components = components
        self.covariance = covariance
        self.ridge = ridge
        self.restarts = restarts
        self.iterations = iterations
        self.tolerance = tolerance
        self.seed = seed
        for name in ("weights_", "means_", "precision_"):
            self.register_buffer(name, torch.empty(0))

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Self:
        """Fit the (N, D) vectors; fewer of them than components cap these."""
        vectors = embedding.detach().float()
        count, width = vectors.shape
        components = min(self.components, count)
        if components < self.components:
            log.warning(
                "model.estimator.components: %d, but there are %d vectors: all are taken",
                self.components,
                count,
            )
        form = self.covariance
        if form == "auto":
            form = "full" if count > 10 * width else "diagonal"
        generator = Generator().manual_seed(self.seed)  # on the CPU, so that every device draws alike
        with torch.autocast(vectors.device.type, enabled=False):
            starts = (k_means(vectors, components, generator) for _ in range(self.restarts))
            tried = (
                self._climb(vectors, maximise(vectors, start, form, self.ridge), form) for start in starts
            )
            _, (self.weights_, self.means_, self.precision_) = max(tried, key=lambda pair: pair[0])
        return self

    @torch.no_grad()
    def score(self, embedding: Tensor) -> Tensor:
        """Return -log p(x), (M,), of (M, D) vectors."""
        with torch.autocast(embedding.device.type, enabled=False):
            joint = log_joint(embedding.float(), Mixture(self.weights_, self.means_, self.precision_))
        return -joint.logsumexp(dim=1)

    def _climb(self, vectors: Tensor, mixture: Mixture, form: Form) -> tuple[float, Mixture]:
        """Return the mean log-likelihood and the mixture after expectation maximisation."""
        reached = -torch.inf
        for _ in range(self.iterations):
            joint = log_joint(vectors, mixture)
            likelihood = joint.logsumexp(dim=1, keepdim=True)
            gain, reached = likelihood.mean().item() - reached, likelihood.mean().item()
            if gain < self.tolerance:
                return reached, mixture
            mixture = maximise(vectors, (joint - likelihood).exp(), form, self.ridge)
        return log_joint(vectors, mixture).logsumexp(dim=1).mean().item(), mixture


def log_joint(vectors: Tensor, mixture: Mixture) -> Tensor:
    """Return log(weight_k N(x; mean_k, covariance_k)), (N, K), of (N, D) vectors.

    It is -inf where the weight is 0.
    """
    scores = []
    for weight, mean, precision in zip(*mixture, strict=True):
        centred = vectors - mean
        white = centred @ precision.T if precision.ndim == 2 else centred * precision
        volume = (precision.diagonal() if precision.ndim == 2 else precision).log().sum()
        scores.append(weight.log() + volume - 0.5 * (len(mean) * LOG_TWO_PI + white.square().sum(dim=1)))
    return torch.stack(scores, dim=1)


def maximise(vectors: Tensor, shares: Tensor, form: Form, ridge: float) -> Mixture:
    """Return the mixture of the greatest likelihood for (N, D) vectors.

    The (N, K) shares of them belong to the components.
    """
    mass = shares.sum(dim=0)
    shares = shares / mass.clamp(min=TINY)
    means = shares.T @ vectors
    factors = []
    for share, mean in zip(shares.T, means, strict=True):
        centred = vectors - mean  # never E[x^2] - mean^2, which cancels
        if form == "full":
            factors.append(whitening((centred * share[:, None]).T @ centred, ridge))
        else:
            factors.append((share @ centred.square() + ridge).rsqrt())
    return Mixture(mass / len(vectors), means, torch.stack(factors))


def k_means(vectors: Tensor, components: int, generator: Generator) -> Tensor:
    """Return (N, K) float32 one-hot shares after k-means++ and some steps of Lloyd.

    k-means++: Arthur, Vassilvitskii, 2007.
    """
    row = drawn(len(vectors), None, generator)
    centres = vectors[row : row + 1]
    closest = torch.full_like(vectors[:, 0], torch.inf)
    while len(centres) < components:
        closest = torch.minimum(closest, (vectors - centres[-1]).square().sum(dim=1))
        row = drawn(len(vectors), closest.clamp(min=TINY), generator)
        centres = torch.cat([centres, vectors[row : row + 1]])
    for _ in range(LLOYD_STEPS):
        owner = nearest(vectors, centres, 1)[1].flatten()
        shares = torch.nn.functional.one_hot(owner, components).float()
        mass = shares.sum(dim=0)[:, None]
        centres = torch.where(mass > 0, (shares.T @ vectors) / mass.clamp(min=1), centres)
    return shares


def drawn(count: int, weights: Tensor | None, generator: Generator) -> int:
    """Return one of so many rows: all are as likely, or in proportion to (N,) weights. Drawn on the CPU."""
    if weights is None:
        return int(torch.randint(count, (1,), generator=generator))
    return int(torch.multinomial(weights.cpu(), 1, generator=generator))
