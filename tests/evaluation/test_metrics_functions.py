"""Metrics of arrays: against scikit-learn and a loop, absent where they mean nothing, and light to import."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import anomaly_lab
from anomaly_lab.errors import RunError
from anomaly_lab.evaluation.metrics import image_metrics, pixel_metrics
from tests.support.reference_metrics import area_to, f1_max, ground_truth, noise, pro_points


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 scores with ties, and bool labels."""
    rng = np.random.default_rng(count)
    label = np.arange(count) % 3 == 0
    return np.round(5 * rng.standard_normal(count) + label, 1), label


@pytest.mark.parametrize("count", [4, 11, 150])
@pytest.mark.parametrize("kind", [np.asarray, list], ids=["array", "list"])
def test_image_metrics_are_scikit_learns(count, kind):
    score, label = drawn(count)
    expected = {
        "image_auroc": roc_auc_score(label, score),
        "image_ap": average_precision_score(label, score),
        "image_f1_max": f1_max(label, score),
    }
    found = image_metrics(kind(score), kind(label))
    assert found == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pixel_metrics_are_scikit_learns_and_those_of_a_loop(limit):
    maps, masks = noise(0).astype(np.float32), ground_truth()
    score, truth = maps.ravel(), masks.ravel()
    expected = {
        "pixel_auroc": roc_auc_score(truth, score),
        "pixel_ap": average_precision_score(truth, score),
        "pixel_f1_max": f1_max(truth, score),
        "pixel_aupro": area_to(limit, pro_points(maps, masks)),
    }
    assert pixel_metrics(maps, masks, limit) == pytest.approx(expected, abs=1e-7)
    if limit == 0.3:
        assert pixel_metrics(maps, masks) == pixel_metrics(maps, masks, 0.3)


def test_aupro_of_a_small_example_by_hand():
    anomaly_map = np.array([[9.0, 1.0, 8.0], [1.0, 1.0, 1.0], [0.0, 7.0, 6.0]])
    mask = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)
    # Two regions: half of them without a false alarm; the other behind the first of six normal pixels.
    points = [(0, 0), (0, 1 / 2), (1 / 6, 1 / 2), (1 / 6, 3 / 4), (1 / 6, 1), (5 / 6, 1), (1, 1)]
    np.testing.assert_allclose(pro_points(anomaly_map[None], mask[None]), points)
    area = 1 / 6 * 1 / 2 + (0.3 - 1 / 6) * 1
    assert pixel_metrics([anomaly_map], [mask])["pixel_aupro"] == pytest.approx(area / 0.3)


def test_images_may_differ_in_size_and_come_one_by_one():
    rng = np.random.default_rng(1)
    masks = [rng.random(size) > 0.7 for size in ((4, 9), (12, 5), (1, 1))]
    maps = [rng.standard_normal(mask.shape) for mask in masks]
    found = pixel_metrics(iter(maps), (mask for mask in masks))
    score, truth = (np.concatenate([part.ravel() for part in parts]) for parts in (maps, masks))
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score.astype(np.float32)))


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_has_no_metric(label):
    assert image_metrics(np.arange(5.0), np.full(5, label)) == {}
    assert pixel_metrics(np.zeros((2, 3, 4)), np.full((2, 3, 4), label)) == {}
    assert image_metrics(np.zeros(0), np.zeros(0, bool)) == pixel_metrics([], []) == {}


def test_misfits_are_value_errors():
    with pytest.raises(ValueError, match=r"scores are \(3,\) but targets \(4,\)"):
        image_metrics(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(ValueError, match=r"scores are \(2, 3\) but targets \(3, 2\)"):
        pixel_metrics([np.zeros((2, 3))], [np.zeros((3, 2), bool)])
    for maps, masks in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="zip"):
            pixel_metrics(np.zeros((maps, 2, 3)), np.zeros((masks, 2, 3), bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused(bad):
    score, label = drawn(11)
    score[3] = bad
    with pytest.raises(RunError, match="NaN or infinite"):
        image_metrics(score, label)
    maps = noise(0)
    maps[1, 2, 3] = bad
    with pytest.raises(RunError, match="NaN or infinite"):
        pixel_metrics(maps, ground_truth())


def test_importing_them_brings_neither_hydra_nor_lightning():
    code = "import sys; from anomaly_lab.evaluation.metrics import image_metrics, pixel_metrics; "
    code += "print([name for name in ('hydra', 'omegaconf', 'lightning') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(anomaly_lab.__file__).parents[1],
    )
    assert done.stdout == "[]\n"
