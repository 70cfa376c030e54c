"""MLFF's losses against formulae in float64, and their gradients where a network is sure."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.mlff.losses import (
    Losses,
    Outputs,
    consistency_loss,
    feature_loss,
    inverse_feature_loss,
    kept_feature_loss,
    kept_score_loss,
    level_loss,
    score_loss,
)


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


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def marked() -> Tensor:
    """Masks at three times the features' size, of the second one pixel, in the cell of row 1, column 2."""
    mask = torch.zeros(2, 6, 9, dtype=torch.bool)
    mask[1, 3, 8] = True
    return mask


def cells() -> list[tuple[int, int, int]]:
    return [(b, r, c) for b in range(2) for r in range(2) for c in range(3)]


def test_the_level_loss_is_the_mean_distance_of_each_level_to_the_fused_map():
    scores, levels = drawn(2, 4, 5).sigmoid(), drawn(3, 2, 4, 5, seed=1).sigmoid()
    wanted = [
        abs(levels[k, b, r, c].item() - scores[b, r, c].item())
        for k in range(3)
        for b in range(2)
        for r in range(4)
        for c in range(5)
    ]
    assert level_loss(scores, levels).item() == pytest.approx(np.mean(wanted), rel=1e-5)
    assert level_loss(scores, scores.expand(3, -1, -1, -1)).item() == 0


def test_the_inverse_feature_loss_is_deep_sads_at_each_position():
    features, center = drawn(2, 4, 2, 3), torch.tensor([0.5, -1.0, 0.0, 2.0])
    wanted = []
    for b, r, c in cells():
        away = np.mean((features[b, :, r, c].double() - center.double()).numpy() ** 2)
        wanted.append(1 / (away + 0.01) if (b, r, c) == (1, 1, 2) else away)
    assert inverse_feature_loss(features, marked(), center).item() == pytest.approx(np.mean(wanted), rel=1e-5)


def test_scores_are_kept_beside_a_defect_and_free_inside_it():
    scores, clean = drawn(2, 6, 9).sigmoid(), drawn(2, 6, 9, seed=1).sigmoid()
    mask = marked()
    wanted = sum(
        abs(scores[b, r, c].item() - clean[b, r, c].item())
        for b in range(2)
        for r in range(6)
        for c in range(9)
        if not mask[b, r, c]
    )
    assert kept_score_loss(scores, clean, mask).item() == pytest.approx(wanted / mask.numel(), rel=1e-5)
    assert kept_score_loss(scores, clean, torch.ones_like(mask)).item() == 0


def test_features_are_kept_beside_a_defect_and_turned_inside_it():
    features, clean = drawn(2, 4, 2, 3), drawn(2, 4, 2, 3, seed=1)
    features[1, :, 1, 2] = clean[1, :, 1, 2] + 0.5  # alike, where they must not be
    wanted = []
    for b, r, c in cells():
        one, other = features[b, :, r, c].double().numpy(), clean[b, :, r, c].double().numpy()
        cosine = one @ other / np.sqrt(one @ one * (other @ other))
        wanted.append(max(cosine, 0) if (b, r, c) == (1, 1, 2) else 1 - cosine)
    assert wanted[-1] > 0.1
    assert kept_feature_loss(features, clean, marked()).item() == pytest.approx(np.mean(wanted), rel=1e-5)
    same = kept_feature_loss(clean, clean, torch.zeros_like(marked()))
    assert same.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_further_readings_have_finite_gradients_where_nothing_differs(value):
    scores = torch.full((2, 6, 9), value, requires_grad=True)
    features = torch.full((2, 4, 2, 3), value, requires_grad=True)
    center = torch.full((4,), value)
    total = (
        level_loss(scores, scores.detach()[None])
        + kept_score_loss(scores, scores.detach(), marked())
        + kept_feature_loss(features, features.detach(), marked())
        + inverse_feature_loss(features, marked(), center)
    )
    total.backward()
    assert total.isfinite()
    assert scores.grad.isfinite().all()
    assert features.grad.isfinite().all()


def losses(form: str, **changes: float) -> Losses:
    values = {"score": 1.0, "consistency": 2.0, "feature": 3.0, "focal_gamma": 2.0}
    return Losses(form=form, **{**values, **changes})


def test_a_form_chooses_consistency_and_feature_and_leaves_the_score():
    mask, center = marked(), drawn(4, seed=5)
    found = Outputs(drawn(2, 6, 9).sigmoid(), drawn(2, 4, 2, 3))
    levels = found._replace(levels=drawn(3, 2, 6, 9, seed=2).sigmoid())
    pairs = found._replace(
        clean_scores=drawn(2, 6, 9, seed=3).sigmoid(), clean_features=drawn(2, 4, 2, 3, seed=4)
    )
    wanted = {
        "overlap": (found, consistency_loss(found.scores, mask), feature_loss(found.features, mask, center)),
        "levels": (
            levels,
            level_loss(levels.scores, levels.levels),
            inverse_feature_loss(levels.features, mask, center),
        ),
        "pairs": (
            pairs,
            kept_score_loss(pairs.scores, pairs.clean_scores, mask),
            kept_feature_loss(pairs.features, pairs.clean_features, mask),
        ),
    }
    for form, (outputs, consistency, feature) in wanted.items():
        of = losses(form).of(outputs, mask, center)
        assert of["score"].item() == pytest.approx(score_loss(found.scores, mask, 2.0).item())
        assert of["consistency"].item() == pytest.approx(2 * consistency.item())
        assert of["feature"].item() == pytest.approx(3 * feature.item())
        early = losses(form).of(outputs, mask, torch.empty(0))  # before there is a center
        assert ("feature" in early) is (form == "pairs")


def test_without_a_score_loss_a_map_that_only_agrees_is_refused():
    assert losses("overlap", score=0)
    for form in ("levels", "pairs"):
        with pytest.raises(
            ConfigError, match=rf"^model\.losses\.score: 0, .* of the form {form} .*; give more"
        ):
            losses(form, score=0)
