"""The metric engine against scikit-learn, and against an AUPRO written out as a loop over all thresholds."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from anomaly_lab.callbacks.evaluation import TOLERANCE
from anomaly_lab.errors import RunError
from anomaly_lab.metrics.bootstrap import bootstrap_interval
from anomaly_lab.metrics.curves import Curves, ExactCurves
from anomaly_lab.metrics.histogram import CurveState

LIMITS = (0.05, 0.3, 1.0)


def ground_truth() -> np.ndarray:
    """Four (20, 26) masks: none, two blobs, a diagonal scratch of one pixel's width with a blob, a single pixel."""
    masks = np.zeros((4, 20, 26), bool)
    masks[1, 2:9, 3:12] = masks[1, 13:15, 16:26] = True
    masks[2, range(4, 18), range(8, 22)] = True
    masks[2, 2:5, 21:26] = True
    masks[3, 19, 0] = True
    return masks


def noise(seed: int) -> np.ndarray:
    """Standard normal maps, some 1.2 higher where anomalous; different defects stand out differently."""
    rng = np.random.default_rng(seed)
    strength = np.array([0, 1.2, 0.6, 3])[:, None, None]
    return rng.standard_normal(ground_truth().shape) + strength * ground_truth()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# name -> maps, centre
CASES = {
    "continuous": (noise(0), 0.1),
    "constant": (np.full_like(noise(0), 0.7), 0.7),
    "constant away from the centre": (np.full_like(noise(0), 0.7), -3.0),
    "heavily tied": (np.round(noise(1) * 2) / 2, 0.0),
    "all ties but one": (np.where(noise(2) == noise(2).max(), 1.0, 0.0), 0.0),
    "negative": (noise(3) - 40, -40.5),
    "5000 +- 1": (5000 + noise(4), 4999.8),
    "5000 +- 1, no centre": (5000 + noise(4), 0.0),
    "30 +- 0.5": (30 + 0.5 * noise(5), 30.1),
    "saturated near 1": (sigmoid(8 + 3 * noise(6)), 0.9996),
    "saturated near 1, centre 0": (sigmoid(8 + 3 * noise(6)), 1e-6),
    "saturated near 0, centre far off": (sigmoid(-30 + 4 * noise(6)), 0.3),
    "denormal": (noise(7) * 1e-41, 0.0),
    "denormal, centre far off": (noise(7) * 1e-41, 1.0),
    "mixed signs, all magnitudes": (np.sign(noise(8)) * 10 ** np.clip(8 * noise(9), -30, 30), 0.0),
    "beyond the cells": (1e30 + 1e29 * noise(10), 0.0),
    "zeros of both signs": (np.where(noise(11) > 0, 0.0, -0.0) + (noise(12) > 1), 0.0),
}


def f1_max(truth: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(truth, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def pro_points(maps: np.ndarray, masks: np.ndarray) -> list[tuple[float, float]]:
    """Every threshold's false-positive rate and mean overlap over the 8-connected regions, in float64, from (0, 0)."""
    maps = np.asarray(maps, np.float64)
    regions, normal = [], maps[~masks]
    for anomaly_map, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [anomaly_map[labels == k] for k in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlap = [np.count_nonzero(region >= threshold) / region.size for region in regions]
        points.append((np.count_nonzero(normal >= threshold) / normal.size, sum(overlap) / len(overlap)))
    return points


@cache
def points_of(name: str) -> list[tuple[float, float]]:
    return pro_points(CASES[name][0].astype(np.float32), ground_truth())


def area_to(limit: float, points: list[tuple[float, float]]) -> float:
    """The area under straight lines between the points, cut exactly at the limit, over the limit."""
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        stop = min(x1, limit)
        y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
        area += (stop - x0) * (y0 + y_stop) / 2
    return area / limit


def add(state: Curves, maps: np.ndarray, masks: np.ndarray) -> Curves:
    for anomaly_map, mask in zip(maps, masks, strict=True):
        state.update_map(anomaly_map, mask)
    return state


def trusted(maps: np.ndarray, masks: np.ndarray, center: float, limit: float) -> Curves:
    """What a run does: stream, and only where the bound is exceeded gather everything."""
    state = CurveState(center)
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


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bits", [9, 12, 22])
def test_error_bound_is_never_exceeded(name, bits):
    masks, (maps, center) = ground_truth(), CASES[name]
    maps = maps.astype(np.float32)
    state = CurveState(center, bits)
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
    state = CurveState(0.5, bits=9)
    state.update_map(anomaly_map, mask)
    assert state.summary("pixel", 1.0)["pixel_auroc"] == 0.5
    assert state.error_bound(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("offset", "scale", "proven"),
    # around 5000 float32 has so few values that true ties alone exceed the bound, though they are counted rightly
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
    state = CurveState(float(np.median(maps[::2])))
    found = add(state, maps, masks).summary("pixel", 0.3)
    score, truth = maps.ravel().astype(np.float64), masks.ravel()
    assert (state.error_bound(0.3) <= TOLERANCE) == proven
    assert 0.6 < found["pixel_auroc"] < 0.99
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-6)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, score), abs=2e-5)
    assert found["pixel_f1_max"] == pytest.approx(f1_max(truth, score), abs=2e-5)
    exact = add(ExactCurves(), maps, masks).summary("pixel", 0.3)
    assert found["pixel_aupro"] == pytest.approx(exact["pixel_aupro"], abs=1e-6)


@pytest.mark.parametrize("kind", [lambda: CurveState(0.0), ExactCurves])
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
    for state in (CurveState(0.0), ExactCurves()):
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


def test_order_split_and_merge_leave_the_same_bits():
    masks, maps = ground_truth(), noise(0).astype(np.float32)
    whole = CurveState(0.1)
    add(whole, maps, masks)
    backwards = CurveState(0.1)
    add(backwards, maps[::-1], masks[::-1])
    first, second = CurveState(0.1), CurveState(0.1)
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
        CurveState(0.0, 12).merge(CurveState(1.0, 12))


def test_batches_of_any_shape_are_the_same_scores():
    score, label = noise(0).astype(np.float32), ground_truth()
    whole, parts = CurveState(0.0), CurveState(0.0)
    whole.update(score, label)
    for k in range(0, score.size, 517):
        parts.update(score.ravel()[k : k + 517], label.ravel()[k : k + 517])
    assert np.array_equal(whole.counts, parts.counts)


def test_the_state_does_not_grow_and_stays_under_100_mib():
    score, label = np.linspace(-1e6, 1e6, 1_000_001, dtype=np.float32), np.arange(1_000_001) % 3 == 0
    whole, parts = CurveState(0.0), CurveState(0.0)
    before = whole.counts.nbytes
    whole.update(score, label)
    for k in range(0, score.size, 77_777):
        parts.update(score[k : k + 77_777], label[k : k + 77_777])
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.counts[0].sum(), whole.counts[1].sum()) == (1_000_001, label.sum())
    assert whole.counts.nbytes == before < 100 * 2**20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [lambda: CurveState(0.0), ExactCurves])
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
    with pytest.raises(AssertionError, match=r"\(3,\)"):
        CurveState(0.0, 12).update(np.zeros(3, np.float32), np.zeros((3, 1), bool))


@pytest.mark.parametrize("kind", [lambda: CurveState(0.0), ExactCurves])
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


def test_a_state_without_both_classes_has_no_error():
    state = CurveState(0.0)
    assert state.error_bound(0.3) == 0
    state.update(np.ones(4, np.float32), np.ones(4, bool))
    assert state.error_bound(0.3) == 0


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
    state = CurveState(0.1)
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
    state = add(CurveState(0.1), maps, masks)
    found, numbers = state.curves(points), state.summary("pixel", 1.0)
    assert {len(column) for column in found.values()} <= set(range(points // 2, points + 1))
    for name in ("fpr", "tpr", "overlap"):
        assert (found[name][0], found[name][-1]) == (0, 1)
        assert (np.diff(found[name]) >= 0).all()
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(numbers["pixel_auroc"], abs=2e-3)
    assert auc(found["fpr"], found["overlap"]) == pytest.approx(numbers["pixel_aupro"], abs=2e-3)
    assert np.sum(np.diff(found["tpr"]) * found["precision"][1:]) == pytest.approx(numbers["pixel_ap"], abs=1e-2)


def test_bootstrap_agrees_with_a_loop_over_scikit_learn():
    rng = np.random.default_rng(0)
    label = np.arange(80) % 4 == 0
    score = np.round(rng.standard_normal(80) + label, 1).astype(np.float32)
    found = bootstrap_interval(score, label, np.random.default_rng(1), 4000)
    auroc, ap = [], []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(label == k), (label == k).sum()) for k in (False, True)])
        above = np.sign(np.subtract.outer(score[rows][label[rows]], score[rows][~label[rows]]))
        auroc.append((above.mean() + 1) / 2)
        ap.append(average_precision_score(label[rows], score[rows]))
    for name, values in (("image_auroc", auroc), ("image_ap", ap)):
        low, high = np.quantile(values, (0.025, 0.975))
        assert found[f"{name}_low"] == pytest.approx(low, abs=0.03)
        assert found[f"{name}_high"] == pytest.approx(high, abs=0.03)
    assert found == bootstrap_interval(score, label, np.random.default_rng(1), 4000)


def test_bootstrap_at_the_edges():
    score, label = np.arange(10, dtype=np.float32), np.arange(10) > 6
    ends = {"image_auroc_low", "image_auroc_high", "image_ap_low", "image_ap_high"}
    assert bootstrap_interval(score, label, np.random.default_rng(0), 50) == dict.fromkeys(ends, 1.0)
    assert bootstrap_interval(score, np.zeros(10, bool), np.random.default_rng(0), 50) == {}
    assert bootstrap_interval(score, np.ones(10, bool), np.random.default_rng(0), 50) == {}
    assert bootstrap_interval(score, label, np.random.default_rng(0), 0) == {}
