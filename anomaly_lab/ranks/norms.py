"""Batch norm over the images of all ranks, so that a batch is normalised alike however many share it.

torch's own SyncBatchNorm knows no CPU, no image that does not count, and no class that derives from a batch
norm. Here the one function that all of them call is computed otherwise, and no network is changed.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from anomaly_lab.ranks import here


@final
class NormsOfAll(TorchFunctionMode):
    """While it is entered, what trains by its batch's statistics takes those of all ranks together."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function, or for `batch_norm` in training the one below."""
        if func is batch_norm and here.size() > 1:
            return _norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _norm(  # noqa: PLR0913, PLR0917 - batch_norm's signature
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: FBT001, FBT002
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return x, (B, C, ...), normalised; the running statistics learn of the images of all ranks."""
    values = here.images_of_batch(len(x)) * x.shape[2:].numel()  # of a channel, on all ranks
    if not training or values == 1:  # of one value torch refuses to train
        return batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    y, mean, var, total = _NormOfAll.apply(x, weight, bias, eps)
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = var * (total / (total - 1).clamp_min(1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    normed: Tensor = y
    return normed


@final
class _NormOfAll(torch.autograd.Function):
    """Each rank knows count, mean and variance of its images; joined they are those of all.

    Two samples are joined as Chan, Golub, LeVeque (1979) do it. In the other direction the two sums over the
    batch that the gradient of x is made of are taken over all ranks; the gradients of weight and bias stay
    each rank's own, since those of all weights are summed later.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        channels = x.shape[1]
        wide = widened(x)
        var, mean = torch.var_mean(wide, axes, correction=0)
        count = mean.new_full((1,), x.numel() // channels if here.counts() else 0)
        own = torch.cat([mean, var, count])
        everybody = [torch.empty_like(own) for _ in range(here.size())]
        dist.all_gather(everybody, own)
        parts = torch.split(torch.stack(everybody), [channels, channels, 1], dim=1)
        means, variances, numbers = parts
        total = numbers.sum()
        mean = (numbers * means).sum(dim=0) / total
        var = (numbers * (variances + (means - mean).square())).sum(dim=0) / total
        inverse = (var + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = [channels if axis == 1 else 1 for axis in range(x.dim())]
        y = torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, inverse, total)
        vars(ctx).update(axes=axes, shape=shape, counts=here.counts(), has_bias=bias is not None)
        ctx.mark_non_differentiable(mean, var, total)
        return y, mean, var, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, total = ctx.saved_tensors
        normed = (widened(x) - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        dy = widened(dy)
        sums = torch.cat([dy.sum(ctx.axes), (dy * normed).sum(ctx.axes)])
        own = sums.clone()
        dist.all_reduce(sums)
        of_dy, of_product = (sums / total).chunk(2)
        scale = inverse if weight is None else inverse * weight
        if ctx.counts:
            dy = dy - of_dy.view(ctx.shape) - normed * of_product.view(ctx.shape)
        dx = (dy * scale.view(ctx.shape)).to(x.dtype)
        d_bias, d_weight = own.chunk(2)
        found_weight = None if weight is None else d_weight.to(weight.dtype)
        return dx, found_weight, d_bias if ctx.has_bias else None, None


def widened(x: Tensor) -> Tensor:
    """Return x in float32, or as it is if it has more digits."""
    return x if x.dtype == torch.float64 else x.float()
