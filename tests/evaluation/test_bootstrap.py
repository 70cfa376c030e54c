"""The intervals of image metrics against resampling in a loop."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from anomaly_lab.evaluation.metrics.bootstrap import bootstrap_interval


def test_bootstrap_agrees_with_a_loop_over_scikit_learn():
    rng = np.random.default_rng(0)
    label = np.arange(80) % 4 == 0
    score = np.round(rng.standard_normal(80) + label, 1).astype(np.float32)
    found = bootstrap_interval(score, label, np.random.default_rng(1), 4000)
    auroc, ap = [], []
    for _ in range(400):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(label == k), (label == k).sum()) for k in (False, True)]
        )
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
