"""How far image metrics could move with other test images of the same kind."""

import numpy as np


def bootstrap_interval(
    score: np.ndarray, label: np.ndarray, rng: np.random.Generator, draws: int
) -> dict[str, float]:
    """Return ``image_auroc_low, _high, image_ap_low, _high``: 95 % percentile intervals.

    It is {} if a class is absent. Scores and bool labels are (N,); normal and anomalous images are drawn
    apart (Efron and Tibshirani 1993, chapter 13).
    """
    if label.all() or not label.any() or not draws:
        return {}
    order = np.argsort(-score)
    truth = label[order]
    times = np.empty((draws, len(score)))  # how often each resample holds each image
    for stratum in (truth, ~truth):
        times[:, stratum] = rng.multinomial(stratum.sum(), np.full(stratum.sum(), 1 / stratum.sum()), draws)
    first = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # of each distinct score
    p, n = (np.add.reduceat(times * stratum, first, axis=1) for stratum in (truth, ~truth))
    tp = p.cumsum(axis=1)
    fp = n.cumsum(axis=1)
    found = {"auroc": (n * (tp - p / 2)).sum(axis=1) / (truth.sum() * (~truth).sum())}
    found["ap"] = (p * tp / np.maximum(tp + fp, 1)).sum(axis=1) / truth.sum()
    ends = {"low": 0.025, "high": 0.975}.items()
    return {f"image_{name}_{end}": float(np.quantile(v, q)) for name, v in found.items() for end, q in ends}
