"""From what was collected to the numbers of a run."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from anomaly_lab.evaluation.collect import Scored
from anomaly_lab.evaluation.doubts import of_files, of_pictures, of_scores, of_threshold
from anomaly_lab.evaluation.metrics.bootstrap import bootstrap_interval
from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.evaluation.threshold import threshold

log = logging.getLogger(__name__)


class Numbers(NamedTuple):
    """What metrics.json and curves.npz hold; what could not be computed is absent."""

    metrics: dict[str, float]
    curves: dict[str, np.ndarray]  # {image,pixel}_{fpr,tpr,precision,overlap}, at most 500 points each
    doubts: list[str]  # what makes the metrics doubtful, a line each


def evaluate(scored: Scored, how: EvaluationSettings, printed: Mapping[str, str]) -> Numbers:
    """Return the numbers of a test set.

    Args:
        scored: of the test set and of the normals that were kept for the threshold.
        how: limits and resamples.
        printed: names that a paper prints metrics under, with the metrics that they are.
    """
    images = ExactCurves()
    images.update(scored.scores, scored.labels)
    levels = {"image": images} if scored.pixels is None else {"image": images, "pixel": scored.pixels}
    metrics: dict[str, float] = {}
    curves: dict[str, np.ndarray] = {}
    for level, state in levels.items():
        metrics |= state.summary(level, how.fpr_limit)
        curves |= {f"{level}_{name}": points for name, points in state.curves().items()}
    if "image_fpr" not in curves:
        log.warning("no image metrics: all test images are of one kind, normal or anomalous")
    metrics |= {name: metrics[true] for name, true in printed.items() if true in metrics}
    metrics |= bootstrap_interval(scored.scores, scored.labels, np.random.default_rng(0), how.bootstrap)
    if len(scored.held_out):
        metrics |= threshold(scored.held_out, how.target_fpr, scored.scores, scored.labels)
    normals = int((~scored.labels).sum())
    doubts = [
        *of_scores(scored.scores, scored.labels, metrics),
        *of_threshold(len(scored.held_out), how.target_fpr, normals, metrics),
        *of_files(scored.records, len(scored.seen.training_grey)),
        *of_pictures(scored.seen),
    ]
    return Numbers(metrics, curves, doubts)
