"""Adam with a rate that falls in steps (DRAEM, PRFF-AD) or along a cosine (MLFF)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from anomaly_lab.errors import ConfigError


def stepped_adam(
    groups: Sequence[dict[str, Any]], steps: int, warmup: float, milestones: Sequence[float], gamma: float
) -> dict[str, Any]:
    """Return, for Lightning, Adam with a rate that is multiplied by ``gamma`` after each milestone.

    Each group has ``params``, ``lr`` and perhaps ``weight_decay``, which is decoupled and 0 if it is not
    given. Warm-up and milestones are shares of all ``steps``, so any length of training keeps the shape.
    """
    optimizer = AdamW(groups, weight_decay=0.0, fused=True)  # without decay AdamW is Adam
    rate = partial(stepped_rate, steps, warmup, milestones, gamma)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"},
    }


def check_schedule(rates: dict[str, float], warmup: float, milestones: Sequence[float], gamma: float) -> None:
    """Raise ConfigError for a value that would train upwards, or never decay as it seems to."""
    for name, value in {**rates, "gamma": gamma}.items():
        if value <= 0:
            raise ConfigError(f"model.{name}: {value} must be above 0")
    for name, shares in {"warmup": [warmup], "milestones": milestones}.items():
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"model.{name}: {list(shares)}; give shares of all steps, 0 to 1")


def stepped_rate(steps: int, warmup: float, milestones: Sequence[float], gamma: float, step: int) -> float:
    """Return the factor on the learning rate at ``step`` (from 0) of ``steps``."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return float(rise * gamma ** sum(step >= share * steps for share in milestones))


def cosine_adam(groups: Sequence[dict[str, Any]], steps: int, warmup: float) -> dict[str, Any]:
    """Return, for Lightning, Adam whose rates fall to 0 along half a cosine (Loshchilov, Hutter, ICLR 2017).

    Each group has ``params`` and ``lr``. Warm-up is a share of all ``steps``: any length of training keeps
    the shape.
    """
    optimizer = AdamW(groups, weight_decay=0.0, fused=True)  # without decay AdamW is Adam
    rate = partial(cosine_rate, steps, warmup)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"},
    }


def cosine_rate(steps: int, warmup: float, step: int) -> float:
    """Return the learning rate's factor at ``step`` (from 0) of ``steps``: a linear rise, then the cosine.

    The rise ends in 1, where the cosine begins; 0 would come one step after the last.
    """
    rise = warmup * steps
    if step + 1 < rise:
        return (step + 1) / rise
    peak = max(0.0, rise - 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - peak) / max(1.0, steps - peak))))
