"""Rates along a cosine against torch's schedulers and values computed by hand; rates that fall in steps."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.schedules import check_schedule, cosine_adam, cosine_rate, stepped_adam


def rates(optimizer: Optimizer, scheduler: LRScheduler, count: int) -> list[float]:
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
    found = [cosine_rate(steps, rise / steps, step) for step in range(steps)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert max(wanted) == 1
    if rise < steps:
        assert cosine_rate(steps, rise / steps, steps) == pytest.approx(0)


@pytest.mark.parametrize(
    ("steps", "warmup", "wanted"),
    [
        # (1 + cos(k pi / 4)) / 2
        (5, 0.4, [0.5, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),
        # (1 + cos(4 pi / 14, 9 pi / 14)) / 2
        (3, 0.4, [0.8333333333333334, 0.8117449009293668, 0.2830581304412209]),
    ],
)
def test_a_warm_up_has_the_rates_computed_by_hand(steps, warmup, wanted):
    assert [cosine_rate(steps, warmup, step) for step in range(steps)] == pytest.approx(wanted, rel=1e-12)


def test_adams_rates_follow_it():
    training = cosine_adam([{"params": [nn.Parameter(torch.ones(1))], "lr": 0.5}], 4, 0.0)
    found = rates(training["optimizer"], training["lr_scheduler"]["scheduler"], 4)
    np.testing.assert_allclose(found, [0.5, 0.42677669529663687, 0.25, 0.07322330470336313])
    assert training["lr_scheduler"]["interval"] == "step"


def test_a_stepped_rate_rises_and_is_multiplied_after_each_milestone():
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": 0.5}]
    training = stepped_adam(groups, 10, 0.2, [0.5, 0.8], 0.1)
    found = rates(training["optimizer"], training["lr_scheduler"]["scheduler"], 10)
    np.testing.assert_allclose(found, [0.25, *[0.5] * 4, *[0.05] * 3, *[0.005] * 2])
    assert training["lr_scheduler"]["interval"] == "step"
    assert training["optimizer"].param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rates": {"learning_rate": 0.0}}, r"model\.learning_rate: 0\.0 must be above 0"),
        ({"gamma": -1.0}, r"model\.gamma: -1\.0 must be above 0"),
        ({"warmup": 1.5}, r"model\.warmup: \[1\.5\]; give shares of all steps"),
        ({"milestones": [0.5, 80]}, r"model\.milestones: \[0\.5, 80\]; give shares of all steps"),
    ],
)
def test_a_schedule_that_cannot_be_names_its_key(change, said):
    good = {"rates": {"learning_rate": 1.0}, "warmup": 0.0, "milestones": [], "gamma": 1.0}
    check_schedule(**good)
    with pytest.raises(ConfigError, match=said):
        check_schedule(**good | change)
