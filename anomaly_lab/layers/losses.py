"""Losses that more than one method uses.

All of them run in float32 whatever the precision of the networks.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from anomaly_lab.ranks import exchange
from anomaly_lab.types import TrainBatch


def ssim(x: Tensor, y: Tensor, value_range: Literal["unit", "guessed"]) -> Tensor:
    """Return the structural similarity of each pixel, (B, C, H, W) float32 in [-1, 1].

    11x11 Gaussian window, sigma 1.5, zero padding, per channel, C1 = (0.01 L)^2, C2 = (0.03 L)^2 (Wang et
    al., 2004). L is 1 (``unit``) or, as DRAEM's code does, ``guessed`` from x: 255 above 128, plus 1 if it
    falls below -0.5.
    """
    x, y = x.float(), y.float()
    with torch.autocast(x.device.type, enabled=False):
        mean_x, xx, xy = _windowed(torch.stack([x, x * x, x * y]))
        mean_y, yy = _windowed(torch.stack([y, y * y]))
    # As a tensor: to ask a value of an accelerator is to wait for it.
    # It is one value for the batch, whichever rank has the greatest of it.
    if value_range == "unit":
        span: Tensor = x.new_ones(())
    else:
        high, low = exchange.greatest(torch.stack([x.max(), -x.min()]))
        span = 1.0 + 254.0 * (high > 128) + (low > 0.5)
    c1 = (0.01 * span).square()
    c2 = (0.03 * span).square()
    products = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    similarity: Tensor = (
        (2 * products + c1) * (2 * (xy - products) + c2) / ((squares + c1) * (xx + yy - squares + c2))
    )
    return similarity


def _windowed(values: Tensor) -> Tensor:
    """Return the weighted mean around each pixel of (..., H, W) values, zeros beyond the border.

    As two products with banded matrices: at 128 px a CPU needs half the time of depthwise convolutions.
    """
    rows, columns = (_band(side, values) for side in values.shape[-2:])
    return rows @ (values @ columns)


def _band(side: int, like: Tensor) -> Tensor:
    """Return the (side, side) symmetric matrix that applies the 11 Gaussian weights along an axis."""
    place = torch.arange(side, dtype=like.dtype, device=like.device)
    distance = (place[:, None] - place).abs()
    weights = torch.exp(-(distance**2) / (2 * 1.5**2)) * (distance <= 5)
    return weights / torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2)).sum()


def focal_loss(probability: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p over all pixels, p the probability given to the true class.

    As in DRAEM's code: one-hot targets are clamped to [1e-5, 1 - 1e-5] and 1e-5 is added to p.

    Args:
        probability: (B, H, W) in [0, 1], of being anomalous.
        mask: (B, H, W) bool.
        gamma: focusing exponent, 0 or >= 1: between them the gradient at p = 1 is NaN.
    """
    target = mask.float().clamp(1e-5, 1 - 1e-5)
    anomalous = probability.float()
    true = target * anomalous + (1 - target) * (1 - anomalous) + 1e-5
    return (-((1 - true) ** gamma) * true.log()).mean()


def draem_loss(
    reconstruction: Tensor | None,
    probability: Tensor | None,
    batch: TrainBatch,
    *,
    ssim_weight: float,
    ssim_range: Literal["unit", "guessed"],
    focal_gamma: float,
) -> dict[str, Tensor]:
    """Return the terms of the loss: squared error, 1 - SSIM, focal (draem.md, note 9); scalars, float32.

    ``reconstruction`` is (B, 3, H, W), ``probability`` (B, H, W) in [0, 1]; the target is the clean image.
    What a method lacks, None, has no term.
    """
    terms = dict[str, Tensor]()
    if reconstruction is not None:
        terms["mse"] = mse_loss(reconstruction.float(), batch.clean)
        terms["ssim"] = ssim_weight * (1 - ssim(reconstruction, batch.clean, ssim_range).mean())
    if probability is not None:
        terms["focal"] = focal_loss(probability, batch.mask, focal_gamma)
    return terms
