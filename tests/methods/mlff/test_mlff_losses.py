"""MLFF's losses against formulae in float64, and their gradients where a network is sure."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.methods.mlff.losses import consistency_loss, feature_loss, score_loss


def scores_and_mask() -> tuple[Tensor, Tensor]:
    scores = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 6, 7, dtype=torch.bool)
    mask[0, 1:3, 2:5] = mask[2, 0, 0] = True
    return scores, mask


def cross_entropy(score: float, anomalous: bool, gamma: float) -> float:
    """As the focal loss of DRAEM's code: targets and the true class's probability are kept off 0."""
    share = 1 - 1e-5 if anomalous else 1e-5
    true = share * score + (1 - share) * (1 - score) + 1e-5
    return -((1 - true) ** gamma) * math.log(true)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_score_loss_is_that_of_pixels_plus_that_of_the_greatest_score(gamma):
    scores, mask = scores_and_mask()
    pairs = zip(scores.flatten().tolist(), mask.flatten().tolist(), strict=True)
    pixels = [cross_entropy(score, anomalous, gamma) for score, anomalous in pairs]
    images = [cross_entropy(scores[i].max().item(), bool(mask[i].any()), 0.0) for i in range(3)]
    wanted = np.mean(pixels) + np.mean(images)
    assert score_loss(scores, mask, gamma).item() == pytest.approx(wanted, rel=1e-5)


def test_the_consistency_loss_is_dice_on_pseudo_images_and_the_mean_score_on_normal_ones():
    scores, mask = scores_and_mask()
    wanted = []
    for s, m in zip(scores.double().numpy(), mask.numpy(), strict=True):
        dice = 1 - (2 * (s * m).sum() + 1) / (s.sum() + m.sum() + 1)
        wanted.append(dice if m.any() else s.mean())
    assert consistency_loss(scores, mask).item() == pytest.approx(np.mean(wanted), rel=1e-6)
    assert consistency_loss(mask[[0, 2]].float(), mask[[0, 2]]).item() == pytest.approx(0)


def test_the_feature_loss_attracts_normal_positions_and_repels_anomalous_ones():
    features = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    center = torch.tensor([0.5, -1.0, 0.0, 2.0])
    mask = torch.zeros(2, 6, 9, dtype=torch.bool)
    mask[1, 3, 8] = True  # one pixel of the cell in row 1, column 2
    wanted = []
    for b in range(2):
        for r in range(3):
            for c in range(3):
                away = ((features[b, :, r, c].double() - center.double()) ** 2).sum().item()
                distance = math.sqrt(away + 1) - 1
                wanted.append(-math.log(1 - math.exp(-distance)) if (b, r, c) == (1, 1, 2) else distance)
    assert feature_loss(features, mask, center).item() == pytest.approx(np.mean(wanted), rel=1e-5)


def test_at_the_center_itself_loss_and_gradient_are_finite():
    center = torch.ones(4)
    features = center.expand(1, 2, 2, 4).movedim(-1, 1).clone().requires_grad_()
    for mask in (torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)):
        loss = feature_loss(features, mask, center)
        loss.backward()
        assert loss.isfinite()
        assert features.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("saturated", [0.0, 1.0])
@pytest.mark.parametrize("pseudo", [False, True])
def test_losses_of_a_sure_network_are_finite(saturated, pseudo, gamma):
    scores = torch.full((2, 4, 4), saturated, requires_grad=True)
    mask = torch.full((2, 4, 4), pseudo)
    (score_loss(scores, mask, gamma) + consistency_loss(scores, mask)).backward()
    assert scores.grad.isfinite().all()
