"""From held-out normal images to a decision."""

import math

import numpy as np


def threshold(
    normal: np.ndarray, target_fpr: float, scores: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the score above which an image is called anomalous, and what that gives on the test set.

    The threshold is the conformal quantile of held-out normal scores: the k-th smallest of n with
    k = ceil((n + 1)(1 - target_fpr)); with too few normals for the target it is the largest.
    """
    rank = min(len(normal), math.ceil((len(normal) + 1) * (1 - target_fpr)))
    limit = np.sort(normal)[rank - 1]
    found = {"threshold": float(limit)}
    if labels.any():
        found["image_recall_at_threshold"] = float((scores[labels] > limit).mean())
    if not labels.all():
        found["image_fpr_at_threshold"] = float((scores[~labels] > limit).mean())
    return found
