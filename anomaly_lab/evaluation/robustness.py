"""How much of a method is left when photographs are not ideal: HIT-MiLF's poison protocol for any method."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomaly_lab.data.augment.hierarchical import FAMILIES, WORST, Family, poisoned
from anomaly_lab.data.decoding import Split
from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.ranks import exchange, here

log = logging.getLogger(__name__)
SEVERITIES = tuple(range(1, WORST + 1))
POISON = 4  # first part of each random address; 1 to 3 are in data/splits.py and data/batches.py


class Cell(NamedTuple):
    """One family at one severity."""

    family: Family
    severity: int
    scores: np.ndarray  # (N,) float32, one for each test image's copy
    auroc: float
    ap: float


def robustness(predictor: Predictor, test: Split, batch_size: int) -> list[Cell]:
    """Score a poisoned copy of every test image per family and severity; none if all images are of one kind.

    The copies depend on family, severity, row and the size of the image alone, so all methods of one size see
    the same (Farady et al. 2023; docs/methods/hit_milf.md, note 6). They are made of the image as the network
    sees it: cropped, and registered if ``data.register``.
    """
    labels = np.array([record.label for record in test.records])
    if labels.all() or not labels.any():
        log.warning("no poisoned metrics: all test images are of one kind, normal or anomalous")
        return []
    cells: list[Cell] = []
    for family in FAMILIES:
        cells += [_measured(predictor, test, family, severity, batch_size) for severity in SEVERITIES]
        found = ", ".join(f"{cell.auroc:.4f}" for cell in cells[-len(SEVERITIES) :])
        log.info("poison: image AUROC %s under %s of severity %s", found, family, SEVERITIES)
    return cells


def _measured(predictor: Predictor, test: Split, family: Family, severity: int, batch_size: int) -> Cell:
    labels = np.array([record.label for record in test.records])
    parts = [np.zeros(0, np.float32)]
    own = here.rows(len(labels))
    step = here.portion(batch_size)
    for start in range(own.start, own.stop, step):
        rows = range(start, min(start + step, own.stop))
        copies = [copied(test.images[row], family, severity, row) for row in rows]
        parts.append(predictor(copies).score.numpy())
    scores = np.concatenate(exchange.gathered(np.concatenate(parts)))
    curves = ExactCurves()
    curves.update(scores, labels)
    summary = curves.summary("image", 1.0)
    return Cell(family, severity, scores, summary["image_auroc"], summary["image_ap"])


def copied(image: np.ndarray, family: Family, severity: int, row: int) -> np.ndarray:
    """Return the one poisoned copy, (H, W, 3) uint8, that every method sees of this row of the test set.

    Severities share the operation, its side and its noise, so that they differ in strength alone.
    """
    rng = np.random.default_rng((POISON, FAMILIES.index(family), row))
    return poisoned(image, family, severity, rng)


def poison_metrics(cells: Sequence[Cell]) -> dict[str, float]:
    """Return ``poison_FAMILY_SEVERITY_image_auroc, _image_ap`` of each cell, and the plain means over all."""
    metrics: dict[str, float] = {}
    for family, severity, _, auroc, ap in cells:
        cell = f"poison_{family}_{severity}_image"
        metrics |= {f"{cell}_auroc": auroc, f"{cell}_ap": ap}
    if cells:
        metrics["poisoned_image_auroc"] = float(np.mean([cell.auroc for cell in cells]))
        metrics["poisoned_image_ap"] = float(np.mean([cell.ap for cell in cells]))
    return metrics
