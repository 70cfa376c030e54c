"""The metric engine against scikit-learn, and against an AUPRO written out as a loop over all thresholds."""

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from anomaly_lab.errors import RunError
from anomaly_lab.evaluation.collect import TOLERANCE
from anomaly_lab.evaluation.metrics.curves import Curves, ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves
from tests.support.reference_metrics import (
    CASES,
    add,
    area_to,
    f1_max,
    ground_truth,
    noise,
    points_of,
    pro_points,
)

LIMITS = (0.05, 0.3, 1.0)


def trusted(maps: np.ndarray, masks: np.ndarray, center: float, limit: float) -> Curves:
    """What a run does: stream, and only where the bound is exceeded gather everything."""
    state = HistogramCurves(center)
    add(state, maps, masks)
    return state if state.error_bound(limit) <= TOLERANCE else add(ExactCurves(), maps, masks)


@pytest.mark.parametrize("name", CASES)
def test_pixel_metrics_are_right(name):
    masks, (maps, center) = ground_truth(), CASES[name]
    maps = maps.astype(np.float32)
    score, truth = maps.ravel().astype(np.float64), masks.ravel()
    for limit in LIMITS:
        for state in (trusted(maps, masks, center, limit), add(ExactCurves(), maps, masks)):
            found = state.summary("pixel", limit)
            assert list(found) == ["pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
            assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-5)
            assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, score), abs=1e-4)
            assert found["pixel_f1_max"] == pytest.approx(f1_max(truth, score), abs=1e-4)
            assert found["pixel_aupro"] == pytest.approx(area_to(limit, points_of(name)), abs=1e-5)


@pytest.mark.parametrize("kind", [lambda: HistogramCurves(0.0), ExactCurves])
def test_a_diagonal_scratch_is_one_region(kind):
    mask = ground_truth()[2]
    anomaly_map = np.where(mask, 0, 1).astype(np.float32)
    anomaly_map[2:5, 21:26] = 2  # the blob is found before any normal pixel, the scratch after all of them
    state = kind()
    state.update_map(anomaly_map, mask)
    # two regions, one of them found; with 4-connectivity it would be one of fifteen
    assert state.summary("pixel", 0.3)["pixel_aupro"] == pytest.approx(0.5)


@pytest.mark.parametrize("limit", LIMITS)
def test_aupro_interpolates_from_the_origin_when_no_threshold_lies_below_the_limit(limit):
    mask = np.zeros((10, 10), bool)
    mask[3:5, 3:5] = True
    for state in (HistogramCurves(0.0), ExactCurves()):
        state.update_map(np.full((10, 10), 2, np.float32), mask)
        # the curve is the line from (0, 0) to (1, 1), so the area to the limit is limit^2 / 2
        assert state.summary("pixel", limit)["pixel_aupro"] == pytest.approx(limit / 2)


@pytest.mark.parametrize("count", [5, 6, 23, 200])
@pytest.mark.parametrize("decimals", [1, 7])
def test_image_metrics_are_right(count, decimals):
    rng = np.random.default_rng(count)
    label = np.arange(count) % 3 == 0
    score = np.round(rng.standard_normal(count) + label, decimals).astype(np.float32)
    state = ExactCurves()
    state.update(score, label)
    assert state.summary("image", 0.3) == pytest.approx(
        {
            "image_auroc": roc_auc_score(label, score),
            "image_ap": average_precision_score(label, score),
            "image_f1_max": f1_max(label, score),
        },
        abs=1e-12,
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [lambda: HistogramCurves(0.0), ExactCurves])
def test_a_score_that_is_not_finite_is_refused_and_nothing_is_added(kind, bad):
    state, maps, masks = kind(), noise(0).astype(np.float32), ground_truth()
    add(state, maps, masks)
    before = state.thresholds()
    maps[1, 3, 3] = bad
    with pytest.raises(RunError, match="NaN or infinite"):
        state.update_map(maps[1], masks[1])
    with pytest.raises(RunError, match="NaN or infinite"):
        state.update(maps, masks)
    assert np.array_equal(state.thresholds(), before)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(3,\) .*\(3, 1\)"):
        HistogramCurves(0.0, 12).update(np.zeros(3, np.float32), np.zeros((3, 1), bool))


@pytest.mark.parametrize("kind", [lambda: HistogramCurves(0.0), ExactCurves])
def test_what_cannot_be_computed_is_absent(kind):
    state = kind()
    assert state.summary("image", 0.3) == {} == state.curves()
    state.update(np.ones(4, np.float32), np.zeros(4, bool))
    assert state.summary("image", 0.3) == {} == state.curves()
    positive = kind()
    positive.update(np.ones(4, np.float32), np.ones(4, bool))
    assert positive.summary("image", 0.3) == {} == positive.curves()
    state.merge(positive)
    assert list(state.summary("image", 0.3)) == ["image_auroc", "image_ap", "image_f1_max"]
    assert list(state.curves()) == ["fpr", "tpr", "precision"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_float_type_are_cast(dtype):
    masks, maps = torch.from_numpy(ground_truth()), torch.from_numpy(noise(0)).to(dtype).requires_grad_()
    score, truth = maps.detach().double().numpy(), masks.numpy().ravel()
    state = ExactCurves()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        state.update_map(anomaly_map, mask)
    found = state.summary("pixel", 0.3)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score.ravel()), abs=1e-7)
    assert found["pixel_aupro"] == pytest.approx(area_to(0.3, pro_points(score, masks.numpy())), abs=1e-7)


def test_curves_of_few_scores_are_complete():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3 == 0
    score = np.round(rng.standard_normal(60) + label, 1).astype(np.float32)
    state = HistogramCurves(0.1)
    state.update(score, label)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(label, score)
    found = state.curves()
    np.testing.assert_allclose(found["fpr"], fpr, atol=1e-12)
    np.testing.assert_allclose(found["tpr"], tpr, atol=1e-12)
    np.testing.assert_allclose(found["precision"], precision[::-1], atol=1e-12)
    np.testing.assert_allclose(found["tpr"], recall[::-1], atol=1e-12)


@pytest.mark.parametrize("points", [100, 500])
def test_curves_of_many_scores_are_short_and_keep_their_areas(points):
    masks, maps = ground_truth(), noise(0).astype(np.float32)
    state = add(HistogramCurves(0.1), maps, masks)
    found, numbers = state.curves(points), state.summary("pixel", 1.0)
    assert {len(column) for column in found.values()} <= set(range(points // 2, points + 1))
    for name in ("fpr", "tpr", "overlap"):
        assert (found[name][0], found[name][-1]) == (0, 1)
        assert (np.diff(found[name]) >= 0).all()
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(numbers["pixel_auroc"], abs=2e-3)
    assert auc(found["fpr"], found["overlap"]) == pytest.approx(numbers["pixel_aupro"], abs=2e-3)
    assert np.sum(np.diff(found["tpr"]) * found["precision"][1:]) == pytest.approx(
        numbers["pixel_ap"], abs=1e-2
    )
