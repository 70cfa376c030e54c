"""The histogram of scores: never off by more than its bound, and the same in any order."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from anomaly_lab.evaluation.collect import TOLERANCE
from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves
from tests.support.reference_metrics import CASES, add, area_to, f1_max, ground_truth, noise, points_of


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bits", [9, 12, 22])
def test_error_bound_is_never_exceeded(name, bits):
    masks, (maps, center) = ground_truth(), CASES[name]
    maps = maps.astype(np.float32)
    state = HistogramCurves(center, bits)
    found = add(state, maps, masks).summary("pixel", 0.3)
    bound = state.error_bound(0.3) + 1e-9
    score, truth = maps.ravel().astype(np.float64), masks.ravel()
    assert abs(found["pixel_auroc"] - roc_auc_score(truth, score)) <= bound
    assert abs(found["pixel_ap"] - average_precision_score(truth, score)) <= 10 * bound
    assert abs(found["pixel_f1_max"] - f1_max(truth, score)) <= 10 * bound
    assert abs(found["pixel_aupro"] - area_to(0.3, points_of(name))) <= bound


@pytest.mark.parametrize("sign", [1, -1])
def test_error_bound_holds_for_the_worst_order_within_a_cell(sign):
    # one coarse cell holds everything and hides a perfect (or perfectly wrong) ranking
    mask = np.arange(100).reshape(10, 10) % 2 == 0
    anomaly_map = np.where(mask, 1.1 + sign * 1e-4, 1.1).astype(np.float32)
    state = HistogramCurves(0.5, bits=9)
    state.update_map(anomaly_map, mask)
    assert state.summary("pixel", 1.0)["pixel_auroc"] == 0.5
    assert state.error_bound(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("offset", "scale", "proven"),
    # around 5000 float32 has so few values that true ties exceed the bound, though they are counted rightly
    [(0, 1, True), (-40, 1, True), (30, 0.5, True), (0, 1e-6, True), (5000, 1, False)],
)
def test_a_histogram_is_enough_for_smooth_maps(offset, scale, proven):
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 256, 256), bool)
    for row in (1, 3, 5):
        masks[row, 20:90, 30:120] = masks[row, 150:200, 60:230] = masks[row, 240, 10 : 40 * row] = True
    maps = 12 * ndimage.gaussian_filter(rng.standard_normal(masks.shape), (0, 3, 3))
    maps += 2 * ndimage.gaussian_filter(masks.astype(float), (0, 3, 3))
    maps = (offset + scale * maps).astype(np.float32)
    state = HistogramCurves(float(np.median(maps[::2])))
    found = add(state, maps, masks).summary("pixel", 0.3)
    score, truth = maps.ravel().astype(np.float64), masks.ravel()
    assert (state.error_bound(0.3) <= TOLERANCE) == proven
    assert 0.6 < found["pixel_auroc"] < 0.99
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-6)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, score), abs=2e-5)
    assert found["pixel_f1_max"] == pytest.approx(f1_max(truth, score), abs=2e-5)
    exact = add(ExactCurves(), maps, masks).summary("pixel", 0.3)
    assert found["pixel_aupro"] == pytest.approx(exact["pixel_aupro"], abs=1e-6)


def test_order_split_and_merge_leave_the_same_bits():
    masks, maps = ground_truth(), noise(0).astype(np.float32)
    whole = HistogramCurves(0.1)
    add(whole, maps, masks)
    backwards = HistogramCurves(0.1)
    add(backwards, maps[::-1], masks[::-1])
    first, second = HistogramCurves(0.1), HistogramCurves(0.1)
    add(first, maps[:1], masks[:1])
    add(second, maps[1:], masks[1:])
    first.merge(second)
    assert np.array_equal(whole.counts, backwards.counts)
    assert np.array_equal(whole.counts, first.counts)
    assert whole.counts[0].sum() == maps.size
    left, right = ExactCurves(), ExactCurves()
    add(left, maps[2:], masks[2:])
    add(right, maps[:2], masks[:2])
    left.merge(right)
    assert np.array_equal(left.thresholds(), add(ExactCurves(), maps, masks).thresholds())


def test_states_of_different_centres_do_not_merge():
    with pytest.raises(AssertionError, match="centre"):
        HistogramCurves(0.0, 12).merge(HistogramCurves(1.0, 12))


def test_batches_of_any_shape_are_the_same_scores():
    score, label = noise(0).astype(np.float32), ground_truth()
    whole, parts = HistogramCurves(0.0), HistogramCurves(0.0)
    whole.update(score, label)
    for k in range(0, score.size, 517):
        parts.update(score.ravel()[k : k + 517], label.ravel()[k : k + 517])
    assert np.array_equal(whole.counts, parts.counts)


def test_the_state_does_not_grow_and_stays_under_100_mib():
    score, label = np.linspace(-1e6, 1e6, 1_000_001, dtype=np.float32), np.arange(1_000_001) % 3 == 0
    whole, parts = HistogramCurves(0.0), HistogramCurves(0.0)
    before = whole.counts.nbytes
    whole.update(score, label)
    for k in range(0, score.size, 77_777):
        parts.update(score[k : k + 77_777], label[k : k + 77_777])
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.counts[0].sum(), whole.counts[1].sum()) == (1_000_001, label.sum())
    assert whole.counts.nbytes == before < 100 * 2**20


def test_a_state_without_both_classes_has_no_error():
    state = HistogramCurves(0.0)
    assert state.error_bound(0.3) == 0
    state.update(np.ones(4, np.float32), np.ones(4, bool))
    assert state.error_bound(0.3) == 0
