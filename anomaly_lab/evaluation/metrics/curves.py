"""AUROC, AP, F1-max and AUPRO from raw float32 scores."""

from abc import ABC, abstractmethod
from typing import Self, final

import cv2
import numpy as np
from torch import Tensor

from anomaly_lab.errors import RunError

# Weight of a whole region, shared by its pixels. Integers add up alike in any order, and an int64 has room
# for 2**23 regions.
REGION = 2**40


class Curves(ABC):
    """Scores gathered so far, higher is more anomalous: update with each image, then ask for the results.

    What cannot be computed is absent from every result. `ExactCurves` keeps the scores, `HistogramCurves` in
    histogram.py counts them in cells.
    """

    def update(self, score: np.ndarray | Tensor, target: np.ndarray | Tensor) -> None:
        """Add scores of any shape, cast to float32, with bool targets of that shape, True = anomalous.

        Raises:
            RunError: a score is NaN or infinite.
            ValueError: the shapes differ.
        """
        self._add(*_flat(score, target), 0)

    def update_map(self, anomaly_map: np.ndarray | Tensor, mask: np.ndarray | Tensor) -> None:
        """Add one (H, W) map with its (H, W) bool ground truth; raises as `update` does.

        AUPRO weighs all 8-connected regions of the ground truth alike, whatever their size.
        """
        score, hit = _flat(anomaly_map, mask)
        _, regions = cv2.connectedComponents(np.asarray(mask, np.bool_).view(np.uint8), connectivity=8)
        region = regions.ravel()[hit]  # the number of each positive pixel's region
        share = np.rint(REGION / np.maximum(np.bincount(region), 1)).astype(np.int64)  # of a pixel, by region
        self._add(score, hit, share[region])

    def summary(self, prefix: str, fpr_limit: float) -> dict[str, float]:
        """Return ``{prefix}_auroc, _ap, _f1_max`` given both classes and, given maps, ``_aupro``.

        Each is in [0, 1]. Equal scores are one threshold. AP is the step sum; F1-max is chosen on these
        targets; AUPRO is the area under mean region overlap over FPR (Bergmann et al., IJCV 2021), cut
        exactly at ``fpr_limit`` and divided by it.

        Args:
            prefix: ``image`` or ``pixel``.
            fpr_limit: in (0, 1]; for AUPRO alone.
        """
        p, n, w = self.thresholds()  # positives, negatives, region weight
        if not (p.any() and n.any()):
            return {}
        tp = p.cumsum()
        fp = n.cumsum()
        metrics = {
            "auroc": (n * (tp - p / 2)).sum() / (tp[-1] * fp[-1]),  # trapezoids n wide, tp - p to tp high
            "ap": (p * tp / (tp + fp)).sum() / tp[-1],  # precision, weighed by the recall that is added
            "f1_max": (2 * tp / (tp[-1] + tp + fp)).max(),
        }
        if w.any():
            limit = fpr_limit * fp[-1]
            start = w.cumsum() - w
            # Each threshold adds a straight line, n wide, that begins at height start. This much of it lies
            # before the limit:
            reach = np.clip(limit - (fp - n), 0, n)
            metrics["aupro"] = (reach * (start + w * reach / np.maximum(2 * n, 1))).sum() / (w.sum() * limit)
        return {f"{prefix}_{name}": float(value) for name, value in metrics.items()}

    def curves(self, points: int = 500) -> dict[str, np.ndarray]:
        """Return ``fpr, tpr, precision`` and, given maps, ``overlap``, which ROC, PR and PRO plot.

        Each is (<= points,) float64, from the highest threshold to the lowest; {} unless both classes are
        there.
        """
        p, n, w = self.thresholds()  # positives, negatives, region weight
        if not (p.any() and n.any()):
            return {}
        columns = {"fpr": n, "tpr": p, "overlap": w} if w.any() else {"fpr": n, "tpr": p}
        rates = {name: column.cumsum() / column.sum() for name, column in columns.items()}
        travelled = np.sum(list(rates.values()), axis=0)  # way along the curves; the points lie evenly on it
        kept = np.unique(np.searchsorted(travelled, np.linspace(0, travelled[-1], points - 1)))
        precision = (p.cumsum() / (p + n).cumsum())[kept]
        return {name: np.r_[0.0, rate[kept]] for name, rate in rates.items()} | {
            "precision": np.r_[1.0, precision]
        }

    @abstractmethod
    def thresholds(self) -> np.ndarray:
        """Return the positives, negatives and region weight at each threshold, highest score first.

        They are (3, T) float64.
        """

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another state of this kind has gathered."""

    @abstractmethod
    def error_bound(self, fpr_limit: float) -> float:
        """Return the most that AUROC and AUPRO can be off, or a tenth of AP's and F1-max's most if larger."""

    @abstractmethod
    def _add(self, score: np.ndarray, hit: np.ndarray, weight: np.ndarray | int) -> None:
        """Add (n,) float32 scores.

        Those at the (k,) indices ``hit`` are positive and have the (k,) int64 weights, or all the same one.
        """


@final
class ExactCurves(Curves):
    """Every score kept and sorted when asked: for image scores, or as the way out.

    A score takes 4 bytes, that of a positive 12.
    """

    def __init__(self) -> None:
        # Negative scores, positive scores and the weights of these; the first, empty part gives the dtypes.
        self._parts = [(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))]

    def _add(self, score: np.ndarray, hit: np.ndarray, weight: np.ndarray | int) -> None:
        self._parts.append((np.delete(score, hit), score[hit], np.broadcast_to(weight, hit.shape)))

    def merge(self, other: Self) -> None:
        """Add what another state has gathered."""
        self._parts += other._parts

    def error_bound(self, fpr_limit: float) -> float:  # noqa: ARG002
        """Return 0."""
        return 0.0

    def thresholds(self) -> np.ndarray:
        """Return one threshold per distinct positive score and one per run of negatives between.

        Such negatives matter only in sum.
        """
        negative, positive, weight = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        negative.sort()
        score, row = np.unique(positive, return_inverse=True)
        # Columns, from the lowest score up: the odd ones are the distinct positive scores, with the negatives
        # that tie with them; the even ones hold the negatives below, between and above.
        first = negative.searchsorted(score)
        behind = negative.searchsorted(score, "right")
        edges = np.stack([first, behind], axis=1).ravel()
        counts = np.zeros((3, 2 * len(score) + 1))
        counts[0, 1::2] = np.bincount(row)
        counts[1] = np.diff(edges, prepend=0, append=len(negative))
        counts[2, 1::2] = np.bincount(row, weight)
        return counts[:, counts[:2].any(axis=0)][:, ::-1]  # no empty columns; the highest score first


def _flat(score: np.ndarray | Tensor, target: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n,) float32 scores and the (k,) indices of the positive ones."""
    if score.shape != target.shape:
        raise ValueError(f"scores are {tuple(score.shape)} but targets {tuple(target.shape)}")
    score = (
        score.detach().float().cpu().numpy() if isinstance(score, Tensor) else np.asarray(score, np.float32)
    )
    if not np.isfinite(score).all():
        raise RunError(
            "anomaly scores are NaN or infinite: lower the learning rate, or, if trainer.precision is mixed, "
            "give 32-true"
        )
    return score.ravel(), np.flatnonzero(np.asarray(target, np.bool_))
