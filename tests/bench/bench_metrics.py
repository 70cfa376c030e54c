"""Pixel metrics of 40 maps of 1024 x 1024: ours against torchmetrics and anomalib, in turn.

    python -m tests.bench.bench_metrics [--tiny]

The scores lie in [0, 1], since torchmetrics would else push them through a sigmoid, which costs it time and
ties. The peers have no pixel F1-max in this comparison; ours includes it. --tiny: two small maps, and
anomalib stays away.
"""

import sys
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from anomaly_lab.evaluation.collect import TOLERANCE
from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves

FPR_LIMIT, THREADS = 0.3, 2


def make_maps(rng: np.random.Generator, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, H, W) float32 distances in [0, 1] and bool masks; every second map is normal.

    The distances are a smooth texture with some grain, as nearest-neighbour methods give; blobs and one-pixel
    scratches stand out from it by more or less, and one blurred hot spot in each normal map is a false alarm.
    """
    maps, masks = np.empty((count, side, side), np.float32), np.zeros((count, side, side), bool)
    for row in range(count):
        texture = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), 8)
        distance = np.exp(0.4 * texture / texture.std()) + 0.02 * rng.random((side, side), np.float32)
        shape = np.zeros((side, side), np.uint8)
        for _ in range(int(rng.integers(2, 7)) if row % 2 else 1):
            cv2.circle(shape, tuple(rng.integers(60, side - 60, 2).tolist()), int(rng.integers(4, 50)), 1, -1)
        if row % 2:
            start = rng.integers(0, side // 2, 2)
            cv2.line(shape, start.tolist(), (start + rng.integers(100, side // 2)).tolist(), 1, 1)
            masks[row] = shape.astype(bool)
        maps[row] = distance + rng.uniform(1, 6) * cv2.GaussianBlur(shape.astype(np.float32), (0, 0), 6)
    return maps / maps.max(), masks


def ours(maps: np.ndarray, masks: np.ndarray, center: float) -> dict[str, float]:
    """Return all four pixel metrics, streamed one map at a time, and their error bound."""
    state = HistogramCurves(center)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        state.update_map(anomaly_map, mask)
    bound = {"error_bound": state.error_bound(FPR_LIMIT), "state_mib": state.counts.nbytes / 2**20}
    return state.summary("pixel", FPR_LIMIT) | bound


def peers(maps: torch.Tensor, masks: torch.Tensor, *, tiny: bool) -> dict[str, Callable[[], float]]:
    """Return what each peer computes, by the name of our metric."""

    def run(metric: torch.nn.Module) -> float:
        for anomaly_map, mask in zip(maps, masks, strict=True):
            metric.update(anomaly_map[None], mask[None])
        return float(metric.compute())

    found = {"pixel_auroc": lambda: run(BinaryAUROC()), "pixel_ap": lambda: run(BinaryAveragePrecision())}
    if tiny:
        return found
    try:
        from anomalib.metrics.aupro import _AUPRO
    except ImportError:
        print("anomalib is not installed, so AUPRO has no peer here: `make bench` installs the extra `peers`")
    else:
        found["pixel_aupro"] = lambda: run(_AUPRO(fpr_limit=FPR_LIMIT))
    return found


def main(arguments: Sequence[str]) -> None:
    """Print seconds, ratio, memory and values."""
    tiny = "--tiny" in arguments
    count, side = (2, 256) if tiny else (40, 1024)
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    maps, masks = make_maps(np.random.default_rng(0), count, side)
    center = float(np.median(maps[::2, ::8, ::8]))  # of normal maps, as in a run
    share = f"{masks.mean():.2%} anomalous pixels"
    print(f"{count} maps of {side} x {side}, {share}, {THREADS} threads, scores in [0, 1]")
    ours(maps, masks, center)
    own, seconds, values = [], {}, {}
    tensors = torch.from_numpy(maps), torch.from_numpy(masks).long()
    for name, compute in peers(*tensors, tiny=tiny).items():
        begin = time.perf_counter()
        result = ours(maps, masks, center)
        own.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        values[name] = compute()
        seconds[name] = time.perf_counter() - begin
        print(f"{name:12s} peer {seconds[name]:7.2f} s, ours (all metrics) {own[-1]:5.2f} s")
    total, mine = sum(seconds.values()), float(np.median(own))
    print(
        f"sum          peer {total:7.2f} s, ours (all metrics) {mine:5.2f} s: {total / mine:.0f} times faster"
    )
    begin = time.perf_counter()
    exact = ExactCurves()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        exact.update_map(anomaly_map, mask)
    reference = exact.summary("pixel", FPR_LIMIT)
    print(f"ours by sorting, the way out above the error bound: {time.perf_counter() - begin:.2f} s")
    theirs = f"a peer keeps {maps.nbytes * 3 / 2**20:.0f} MiB of scores and targets"
    print(f"our state {result['state_mib']:.0f} MiB; {theirs}")
    print(f"error bound {result['error_bound']:.1e}, allowed {TOLERANCE:.0e}")
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"):
        peer = (
            f"peer {values[name]:.7f}, difference {result[name] - values[name]:+.1e}"
            if name in values
            else "no peer"
        )
        print(f"{name:12s} ours {result[name]:.7f}, sorted {reference[name]:.7f}, {peer}")


if __name__ == "__main__":
    main(sys.argv[1:])
