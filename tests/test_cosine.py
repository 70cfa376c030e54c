"""The rate that rises and falls along a cosine, against torch's schedulers and values computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from anomaly_lab.nn.cosine import cosine_adam, cosine_rate


def rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def plain() -> SGD:
    return SGD([nn.Parameter(torch.ones(1))], lr=1.0)


@pytest.mark.parametrize(("steps", "rise"), [(10, 0), (50, 10), (1, 0), (3, 3), (7, 2)])
def test_the_rate_is_that_of_torchs_linear_and_cosine_schedulers(steps, rise):
    peak = max(0, rise - 1)
    linear, cosine = plain(), plain()
    wanted = rates(linear, LinearLR(linear, 1 / max(1, rise), total_iters=peak), peak)
    wanted += rates(cosine, CosineAnnealingLR(cosine, steps - peak), steps - peak)
    np.testing.assert_allclose([cosine_rate(steps, rise / steps, step) for step in range(steps)], wanted, atol=1e-12)
    assert max(wanted) == 1
    if rise < steps:
        assert cosine_rate(steps, rise / steps, steps) == pytest.approx(0)


@pytest.mark.parametrize(
    ("steps", "warmup", "wanted"),
    [
        (5, 0.4, [0.5, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),  # (1 + cos(k pi / 4)) / 2
        (3, 0.4, [0.8333333333333334, 0.8117449009293668, 0.2830581304412209]),  # (1 + cos(4 pi / 14, 9 pi / 14)) / 2
    ],
)
def test_a_warm_up_has_the_rates_computed_by_hand(steps, warmup, wanted):
    assert [cosine_rate(steps, warmup, step) for step in range(steps)] == pytest.approx(wanted, rel=1e-12)


def test_adams_rates_follow_it():
    training = cosine_adam([{"params": [nn.Parameter(torch.ones(1))], "lr": 0.5}], 4, 0.0)
    found = rates(training["optimizer"], training["lr_scheduler"]["scheduler"], 4)
    np.testing.assert_allclose(found, [0.5, 0.42677669529663687, 0.25, 0.07322330470336313])
    assert training["lr_scheduler"]["interval"] == "step"
