"""Curves of a size that does not grow with the test set."""

from typing import Self, final

import numpy as np

from anomaly_lab.evaluation.metrics.curves import Curves


@final
class HistogramCurves(Curves):
    """A histogram of fixed size (96 MiB at 22 bits), the same for any order, split or number of processes.

    A cell is the sign, exponent (2**-36..2**28; the ends take the rest) and ``bits - 7`` mantissa bits of
    score less ``center``, at best the median training pixel. ``counts``, (3, 2**bits) int64, may be summed
    over ranks in place.
    """

    def __init__(self, center: float, bits: int = 22) -> None:
        self.counts = np.zeros((3, 2**bits), np.int64)
        self._shift = np.float32(0.0 - center)  # not -center: adding +0.0 makes -0.0 equal to 0.0
        self._drop = 30 - bits
        self._low = (127 - 36) << (bits - 7)
        self._high = ((127 + 28) << (bits - 7)) - 1

    def _cells(self, score: np.ndarray) -> np.ndarray:
        """Return the (n,) int64 cells; -1 - cell below the centre, counting from the array's end."""
        bits = (score + self._shift).view(np.int32)
        cell = np.clip((bits & 0x7FFFFFFF) >> self._drop, self._low, self._high) - self._low
        return np.asarray(cell ^ (bits >> 31), np.int64)

    def _add(self, score: np.ndarray, hit: np.ndarray, weight: np.ndarray | int) -> None:
        for part in np.array_split(score, len(score) // 2**18 + 1):  # what fits into the cache is faster
            np.add.at(self.counts[0], self._cells(part), 1)
        np.add.at(self.counts[1], self._cells(score[hit]), 1)
        np.add.at(self.counts[2], self._cells(score[hit]), weight)

    def merge(self, other: Self) -> None:
        """Add what another state of the same centre and bits has gathered."""
        assert (self._shift, self._drop) == (other._shift, other._drop), (
            "only states of one centre and size add up"
        )
        self.counts += other.counts

    def thresholds(self) -> np.ndarray:  # noqa: D102
        used = np.flatnonzero(self.counts[0])[::-1]
        used = np.roll(used, -np.count_nonzero(used >= self.counts.shape[1] // 2))
        counts = self.counts[:, used].astype(np.float64)
        return np.stack([counts[1], counts[0] - counts[1], counts[2]])

    def error_bound(self, fpr_limit: float) -> float:
        """Return the most that they can be off, whatever the order within the cells."""
        p, n, w = self.thresholds()
        if not (p.any() and n.any()):
            return 0.0
        tp = p.cumsum()
        fp = n.cumsum()
        before = n.cumsum() - n
        aupro = (w * n)[before < fpr_limit * fp[-1]].sum() / max(2 * w.sum() * fp[-1] * fpr_limit, 1.0)
        # At best all positives come before the negatives.
        best = p * tp / np.maximum(tp + before, 1)
        tied = p * tp / (tp + fp)
        # At worst they come one by one behind them: the midpoint rule bounds that sum.
        worst = p - fp * np.log1p(p / (tp - p + fp + 0.5))
        ap = max((best - tied).sum(), (tied - worst).sum()) / tp[-1]
        f1_max = (2 * tp / (tp[-1] + tp + before)).max() - (2 * tp / (tp[-1] + tp + fp)).max()
        return float(max((p * n).sum() / (2 * tp[-1] * fp[-1]), aupro, ap / 10, f1_max / 10))
