"""VT-ADL's mixture density network: how likely a token is under Gaussians made from it.

Mishra et al., ISIE 2021.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from anomaly_lab.errors import ConfigError

VALUES = 2**21  # of the means that exist at once, 8 MiB; some ten tensors of this size are alive at the peak


@final
class MixtureDensity(nn.Module):
    """The negative log-likelihood of each token under a mixture made from it; (B, T, dim) to (B, T) float32.

    Three linear maps without bias give weights pi, means and spreads of K Gaussians with diagonal covariance:
    5.25 M parameters for K = 10 and dim 512, 78.72 M for K = 150. All means of the paper's batch, 8 x 64
    tokens, would be 157 MB, so Gaussians are computed a few at a time, and once more for their gradients.

    Args:
        dim: of a token, D.
        gaussians: K.
        likelihood: ``logsumexp`` is -log sum_k pi_k N_k(x), the text's. ``expected`` is the released code's
            sum_k pi_k (-log N_k(x)), an upper bound of it (Jensen), with log 2 pi once instead of D times.
        variance: ``softplus_with_floor`` makes the variance softplus(s) + ``variance_floor``;
            ``softplus_as_log`` is the released code's exp(softplus(s)), which is never below 1.
        variance_floor: in squared units of a token's entry.
        clamp: ``positive`` shows the three maps max(x, 2^-52), as released; the density is that of x itself.
    """

    def __init__(
        self,
        dim: int,
        gaussians: int,
        likelihood: Literal["expected", "logsumexp"],
        variance: Literal["softplus_as_log", "softplus_with_floor"],
        variance_floor: float,
        clamp: Literal["positive", "none"],
    ) -> None:
        super().__init__()
        if gaussians < 1:
            raise ConfigError(f"model.mixture.gaussians: {gaussians}; give at least 1")
        if variance == "softplus_with_floor" and variance_floor <= 0:
            raise ConfigError(f"model.mixture.variance_floor: {variance_floor}; give a variance above 0")
        self.likelihood = likelihood
        self.variance = variance
        self.floor = variance_floor
        self.clamp = clamp
        bound = dim**-0.5  # of PyTorch's linear maps, which the released code leaves as they are
        self.weights = nn.Parameter(torch.empty(gaussians, dim).uniform_(-bound, bound))
        self.means = nn.Parameter(torch.empty(gaussians, dim, dim).uniform_(-bound, bound))
        self.spreads = nn.Parameter(torch.empty(gaussians, dim, dim).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the negative log-likelihoods, unbounded; gradients reach the tokens both ways."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = tokens.flatten(0, 1).to(self.means.dtype)
            seen = x.clamp(torch.finfo(torch.float64).eps) if self.clamp == "positive" else x
            share = linear(seen, self.weights)
            log_gaussians = self._in_parts(x, seen)
            if self.likelihood == "logsumexp":
                result = -(share.log_softmax(dim=1) + log_gaussians).logsumexp(dim=1)
            else:
                result = -(share.softmax(dim=1) * log_gaussians).sum(dim=1)
            return result.view(tokens.shape[:2])

    def _in_parts(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return (N, K), computed as many Gaussians at a time as fit."""
        few = max(1, VALUES // x.numel())
        if few >= len(self.means):
            return self._log_gaussians(x, seen, self.means, self.spreads)
        if torch.is_grad_enabled():
            result: Tensor = _Recomputed.apply(self._log_gaussians, few, x, seen, self.means, self.spreads)
            return result
        return _joined(self._log_gaussians, few, x, seen, self.means, self.spreads)

    def _log_gaussians(self, x: Tensor, seen: Tensor, means: Tensor, spreads: Tensor) -> Tensor:
        """Return (N, k) of (N, D) tokens under k Gaussians, whose maps are (k, D, D).

        The difference is squared as it stands: expanded into matrix products it would cancel where a mean is
        near.
        """
        error = (x[:, None] - linear(seen, means.flatten(0, 1)).view(len(x), *means.shape[:2])).square()
        spread = softplus(linear(seen, spreads.flatten(0, 1))).view(error.shape)
        if self.variance == "softplus_as_log":
            terms = spread + error * (-spread).exp()
        else:
            variance = spread + self.floor
            terms = variance.log() + error / variance
        constants = x.shape[1] if self.likelihood == "logsumexp" else 1
        return -0.5 * (constants * math.log(2 * math.pi) + terms.sum(dim=2))


Formula = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _joined(formula: Formula, few: int, x: Tensor, seen: Tensor, means: Tensor, spreads: Tensor) -> Tensor:
    parts = zip(torch.split(means, few), torch.split(spreads, few), strict=True)
    return torch.cat([formula(x, seen, *part) for part in parts], dim=1)


@final
class _Recomputed(torch.autograd.Function):
    """Keeps nothing but its inputs.

    Each part is computed once more when its gradients, in their places, are wanted. With torch's own
    checkpoints the parts' gradients would lie beside the whole they are put together to.
    """

    @staticmethod
    def forward(ctx: Any, formula: Formula, few: int, *given: Tensor) -> Tensor:
        ctx.formula = formula
        ctx.few = few
        ctx.save_for_backward(*given)
        return _joined(formula, few, *given)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, seen, means, spreads = ctx.saved_tensors
        totals = (
            torch.zeros_like(x),
            torch.zeros_like(seen),
            torch.empty_like(means),
            torch.empty_like(spreads),
        )
        for start in range(0, len(means), ctx.few):
            part = slice(start, start + ctx.few)
            inputs = [value.detach().requires_grad_() for value in (x, seen, means[part], spreads[part])]
            with torch.enable_grad():
                outputs = ctx.formula(*inputs)
            found = torch.autograd.grad(outputs, inputs, gradient[:, part])
            totals[0].add_(found[0])
            totals[1].add_(found[1])
            totals[2][part], totals[3][part] = found[2:]
        return None, None, *totals
