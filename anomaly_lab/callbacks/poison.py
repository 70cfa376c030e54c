"""How much of a method is left when the photographs are not ideal: HIT-MiLF's poison protocol for any method."""

import logging
from typing import NamedTuple, final

import lightning as L
import numpy as np

from anomaly_lab.callbacks.overlays import sheet
from anomaly_lab.callbacks.pictures import png
from anomaly_lab.callbacks.rescoring import predict_rows
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.hierarchical import FAMILIES, WORST, Family, poisoned
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.metrics.curves import ExactCurves
from anomaly_lab.results import RunDirectory

log = logging.getLogger(__name__)
SEVERITIES = tuple(range(1, WORST + 1))
POISON = 4  # first part of each random address, as in data/datasets.py


class Cell(NamedTuple):
    """One family at one severity."""

    family: Family
    severity: int
    scores: np.ndarray  # (N,) float32, one for each test image's copy
    auroc: float
    ap: float


@final
class Poison(L.Callback):
    """Scores a poisoned copy of every test image per family and severity; belongs after `Evaluation`.

    Adds to metrics.json ``poison_FAMILY_SEVERITY_image_auroc, _image_ap`` and, their plain means over all cells,
    ``poisoned_image_auroc, _ap``; writes poison.csv, poison_predictions.csv and maps/poison.png. The copies depend on
    family, severity, row and the size of the image alone, so all methods of one size see the same (methods 4.2; Farady
    et al. 2023). They are made of the image as the network sees it: cropped, and registered if ``data.register``.
    """

    def __init__(self, directory: RunDirectory, data: AnomalyDataModule) -> None:
        self.directory, self.data = directory, data

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, and write the numbers."""
        assert isinstance(pl_module, AnomalyMethod)
        labels = np.array([record.label for record in self.data.test.records])
        if labels.all() or not labels.any():
            log.warning("no poisoned metrics: all test images are of one kind, normal or anomalous")
            return
        cells: list[Cell] = []
        for family in FAMILIES:
            cells += [self._measured(trainer, pl_module, family, severity, labels) for severity in SEVERITIES]
            found = ", ".join(f"{cell.auroc:.4f}" for cell in cells[-len(SEVERITIES) :])
            log.info("poison: image AUROC %s under %s of severity %s", found, family, SEVERITIES)
        self._write(cells)
        with self.directory.replacing("maps/poison.png") as file:
            picture = self._pictures(int(labels.argmin()))
            file.write_bytes(png(picture))

    def _measured(
        self, trainer: L.Trainer, method: AnomalyMethod, family: Family, severity: int, labels: np.ndarray
    ) -> Cell:
        split, parts = self.data.test, []
        for start in range(0, len(labels), self.data.batch_size):
            rows = range(start, min(start + self.data.batch_size, len(labels)))
            copies = np.stack([copied(split.images[row], family, severity, row) for row in rows])
            prediction = predict_rows(trainer, method, split._replace(images=copies), list(range(len(rows))))[1]
            parts.append(prediction.score.numpy())
        scores, curves = np.concatenate(parts), ExactCurves()
        curves.update(scores, labels)
        summary = curves.summary("image", 1.0)
        return Cell(family, severity, scores, summary["image_auroc"], summary["image_ap"])

    def _write(self, cells: list[Cell]) -> None:
        metrics = self.directory.metrics()
        clean = ("clean", 0, metrics["image_auroc"], metrics["image_ap"])
        for family, severity, _, auroc, ap in cells:
            cell = f"poison_{family}_{severity}_image"
            metrics |= {f"{cell}_auroc": auroc, f"{cell}_ap": ap}
        metrics["poisoned_image_auroc"] = float(np.mean([cell.auroc for cell in cells]))
        metrics["poisoned_image_ap"] = float(np.mean([cell.ap for cell in cells]))
        self.directory.write_json("metrics.json", metrics)
        table = [clean, *((cell.family, cell.severity, cell.auroc, cell.ap) for cell in cells)]
        self.directory.write_table("poison.csv", ("family", "severity", "image_auroc", "image_ap"), table)
        rows = [
            (record.image.as_posix(), cell.family, cell.severity, int(record.label), float(score))
            for cell in cells
            for record, score in zip(self.data.test.records, cell.scores, strict=True)
        ]
        self.directory.write_table("poison_predictions.csv", ("path", "family", "severity", "label", "score"), rows)

    def _pictures(self, row: int) -> np.ndarray:
        """Return one test image, clean and as the method saw its copies, a line for each family."""
        image, name = self.data.test.images[row], self.data.test.records[row].image.name
        lines = []
        for family in FAMILIES:
            copies = {f"severity {s}": copied(image, family, s, row) for s in SEVERITIES}
            lines.append(sheet(f"{family}: {name}", {"clean": image} | copies))
        return np.concatenate(lines)


def copied(image: np.ndarray, family: Family, severity: int, row: int) -> np.ndarray:
    """Return the one poisoned copy, (H, W, 3) uint8, that every method sees of this row of the test set.

    Severities share the operation, its side and its noise, so that they differ in strength alone.
    """
    rng = np.random.default_rng((POISON, FAMILIES.index(family), row))
    return poisoned(image, family, severity, rng)
