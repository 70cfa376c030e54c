"""Adam with a rate that falls along a cosine."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def cosine_adam(groups: Sequence[dict[str, Any]], steps: int, warmup: float) -> dict[str, Any]:
    """Return, for Lightning, Adam whose rates fall to 0 along half a cosine (Loshchilov, Hutter, ICLR 2017).

    Each group has ``params`` and ``lr``. Warm-up is a share of all ``steps``: any length of training keeps the shape.
    """
    optimizer = AdamW(groups, weight_decay=0.0, fused=True)  # without decay AdamW is Adam
    rate = partial(cosine_rate, steps, warmup)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"}}


def cosine_rate(steps: int, warmup: float, step: int) -> float:
    """Return the factor on the learning rate at ``step`` (from 0) of ``steps``: a linear rise, then the cosine.

    The rise ends in 1, where the cosine begins; 0 would come one step after the last.
    """
    rise = warmup * steps
    if step + 1 < rise:
        return (step + 1) / rise
    peak = max(0.0, rise - 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - peak) / max(1.0, steps - peak))))
