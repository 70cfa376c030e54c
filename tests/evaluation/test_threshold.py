"""The threshold from held-out normals: its rank by counting, its promise by drawing many test sets."""

import numpy as np
import pytest

from anomaly_lab.evaluation.threshold import threshold


@pytest.mark.parametrize(
    ("count", "target", "rank"), [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (99, 0.1, 90)]
)
def test_it_is_the_score_that_so_many_normals_do_not_exceed(count, target, rank):
    normal = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    limit = threshold(normal, target, np.zeros(2), np.array([True, False]))["threshold"]
    assert limit in normal
    assert sum(float(score) <= limit for score in normal) == rank


@pytest.mark.parametrize("count", [1, 5, 18])
def test_with_too_few_normals_it_is_the_largest(count):
    normal = np.random.default_rng(count).standard_normal(count)
    assert threshold(normal, 0.05, np.zeros(1), np.array([True]))["threshold"] == max(normal)


def test_a_new_normal_exceeds_it_as_seldom_as_promised():
    rng, target, count = np.random.default_rng(0), 0.1, 29
    exceeded = []
    for _ in range(4000):
        normal, new = rng.standard_exponential(count), rng.standard_exponential(50)
        exceeded.append(threshold(normal, target, new, np.zeros(50, bool))["image_fpr_at_threshold"])
    # k of n exchangeable scores: exactly 1 - k / (n + 1) of the new ones lie above, here 3 / 30.
    assert abs(np.mean(exceeded) - target) < 0.004


def test_recall_and_false_alarms_are_counted_strictly_above():
    normal, scores = np.arange(19.0), np.array([18.0, 18.5, 30.0, 2.0, 18.0, 40.0])
    labels = np.array([True, True, True, False, False, False])
    found = threshold(normal, 0.05, scores, labels)
    assert found == {"threshold": 18.0, "image_recall_at_threshold": 2 / 3, "image_fpr_at_threshold": 1 / 3}
    assert set(threshold(normal, 0.05, scores[:3], labels[:3])) == {"threshold", "image_recall_at_threshold"}
    assert set(threshold(normal, 0.05, scores[3:], labels[3:])) == {"threshold", "image_fpr_at_threshold"}
