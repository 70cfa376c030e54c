"""Metrics written out as loops over all thresholds, and the scores that they are asked for."""

from functools import cache
from itertools import pairwise

import numpy as np
from scipy import ndimage
from sklearn.metrics import precision_recall_curve

from anomaly_lab.evaluation.metrics.curves import Curves


def ground_truth() -> np.ndarray:
    """Four (20, 26) masks: none, two blobs, a diagonal scratch one pixel wide with a blob, a single pixel."""
    masks = np.zeros((4, 20, 26), bool)
    masks[1, 2:9, 3:12] = masks[1, 13:15, 16:26] = True
    masks[2, range(4, 18), range(8, 22)] = True
    masks[2, 2:5, 21:26] = True
    masks[3, 19, 0] = True
    return masks


def noise(seed: int) -> np.ndarray:
    """Standard normal maps, some 1.2 higher where anomalous; different defects stand out differently."""
    rng = np.random.default_rng(seed)
    strength = np.array([0, 1.2, 0.6, 3])[:, None, None]
    return rng.standard_normal(ground_truth().shape) + strength * ground_truth()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# name -> maps, centre
CASES = {
    "continuous": (noise(0), 0.1),
    "constant": (np.full_like(noise(0), 0.7), 0.7),
    "constant away from the centre": (np.full_like(noise(0), 0.7), -3.0),
    "heavily tied": (np.round(noise(1) * 2) / 2, 0.0),
    "all ties but one": (np.where(noise(2) == noise(2).max(), 1.0, 0.0), 0.0),
    "negative": (noise(3) - 40, -40.5),
    "5000 +- 1": (5000 + noise(4), 4999.8),
    "5000 +- 1, no centre": (5000 + noise(4), 0.0),
    "30 +- 0.5": (30 + 0.5 * noise(5), 30.1),
    "saturated near 1": (sigmoid(8 + 3 * noise(6)), 0.9996),
    "saturated near 1, centre 0": (sigmoid(8 + 3 * noise(6)), 1e-6),
    "saturated near 0, centre far off": (sigmoid(-30 + 4 * noise(6)), 0.3),
    "denormal": (noise(7) * 1e-41, 0.0),
    "denormal, centre far off": (noise(7) * 1e-41, 1.0),
    "mixed signs, all magnitudes": (np.sign(noise(8)) * 10 ** np.clip(8 * noise(9), -30, 30), 0.0),
    "beyond the cells": (1e30 + 1e29 * noise(10), 0.0),
    "zeros of both signs": (np.where(noise(11) > 0, 0.0, -0.0) + (noise(12) > 1), 0.0),
}


def f1_max(truth: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(truth, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def pro_points(maps: np.ndarray, masks: np.ndarray) -> list[tuple[float, float]]:
    """Every threshold's false-positive rate and mean overlap of the 8-connected regions, from (0, 0)."""
    maps = np.asarray(maps, np.float64)
    regions, normal = [], maps[~masks]
    for anomaly_map, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [anomaly_map[labels == k] for k in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlap = [np.count_nonzero(region >= threshold) / region.size for region in regions]
        points.append((np.count_nonzero(normal >= threshold) / normal.size, sum(overlap) / len(overlap)))
    return points


@cache
def points_of(name: str) -> list[tuple[float, float]]:
    return pro_points(CASES[name][0].astype(np.float32), ground_truth())


def area_to(limit: float, points: list[tuple[float, float]]) -> float:
    """The area under straight lines between the points, cut exactly at the limit, over the limit."""
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        stop = min(x1, limit)
        y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
        area += (stop - x0) * (y0 + y_stop) / 2
    return area / limit


def add(state: Curves, maps: np.ndarray, masks: np.ndarray) -> Curves:
    for anomaly_map, mask in zip(maps, masks, strict=True):
        state.update_map(anomaly_map, mask)
    return state
