"""Image and pixel metrics as functions of arrays.

Scores are raw, higher is more anomalous, and nothing is normalised.
"""

from collections.abc import Iterable

import numpy as np

from anomaly_lab.evaluation.metrics.curves import ExactCurves

__all__ = ["image_metrics", "pixel_metrics"]


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return ``image_auroc``, ``image_ap`` and ``image_f1_max``, each in [0, 1].

    It is {} unless both classes are there.

    Args:
        scores: (N,) float, unbounded.
        labels: (N,) bool, True = anomalous.

    Raises:
        RunError: a score is NaN or infinite.
        ValueError: the shapes differ.
    """
    state = ExactCurves()
    state.update(np.asarray(scores), np.asarray(labels))
    return state.summary("image", fpr_limit=1.0)  # cuts AUPRO alone, which images have none of


def pixel_metrics(
    maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], fpr_limit: float = 0.3
) -> dict[str, float]:
    """Return ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max`` and ``pixel_aupro``, each in [0, 1].

    It is {} unless both classes are there.

    Args:
        maps: of each image, (H, W) float, unbounded; images may differ in size.
        masks: of each image, (H, W) bool, True = anomalous.
        fpr_limit: in (0, 1]; AUPRO integrates to this false positive rate and is divided by it.

    Raises:
        RunError: a value is NaN or infinite.
        ValueError: the counts or the shapes differ.
    """
    state = ExactCurves()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        state.update_map(np.asarray(anomaly_map), np.asarray(mask))
    return state.summary("pixel", fpr_limit)
