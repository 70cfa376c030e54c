"""The one place that turns predictions into numbers."""

import logging
from typing import Any, Literal, final

import lightning as L
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.images import read_mask
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.metrics.bootstrap import bootstrap_interval
from anomaly_lab.metrics.curves import Curves, ExactCurves
from anomaly_lab.results import RunDirectory
from anomaly_lab.types import EvalBatch, Prediction

log = logging.getLogger(__name__)
TOLERANCE = 1e-5  # a histogram that can be off by more is not believed
FEW_PIXELS = 2**24  # sorting every score of so many takes less memory (64 MiB) than the histogram


@final
class Evaluation(L.Callback):
    """Streams the test predictions into curve states; writes metrics.json, predictions.csv and curves.npz.

    Args:
        resolution: pixel metrics on the network's grid, or on the original masks with the maps resized to them.
        fpr_limit: AUPRO integrates to this false positive rate.
        target_fpr: the threshold lets about this share of normal images pass as anomalous.
        bootstrap: resamples behind the 95 % intervals of image AUROC and AP.
    """

    def __init__(
        self,
        directory: RunDirectory,
        data: AnomalyDataModule,
        resolution: Literal["network", "original"],
        fpr_limit: float,
        target_fpr: float,
        bootstrap: int,
    ) -> None:
        if not 0 < fpr_limit <= 1 or not 0 < target_fpr < 1 or bootstrap < 0:
            limits = f"evaluation.fpr_limit={fpr_limit}, target_fpr={target_fpr}, bootstrap={bootstrap}"
            raise ConfigError(f"{limits}: give shares above 0 and at most 1, and no negative count")
        if resolution == "original" and data.register:
            raise ConfigError("evaluation.resolution: original does not go with data.register=true; give network")
        self.directory, self.data, self.resolution, self.fpr_limit = directory, data, resolution, fpr_limit
        self.target_fpr, self.bootstrap = target_fpr, bootstrap

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        assert isinstance(pl_module, AnomalyMethod)
        self.normal_maps: list[Tensor] = []
        self.normal_scores: list[Tensor] = []
        self.scores = np.full(len(self.data.test.records), np.nan, np.float32)
        unmasked = self.data.unmasked()
        self.pixels: Curves | None = None
        self.localises = pl_module.localises and not unmasked
        if unmasked:
            log.warning("no pixel metrics: %d anomalous test images have no mask", unmasked)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in one batch: first the normals, whose median centres the histograms, then the test set."""
        prediction = Prediction(*(value.cpu() for value in outputs))
        if dataloader_idx == 0:
            self.normal_maps.append(prediction.anomaly_map[:, ::4, ::4])
            self.normal_scores.append(prediction.score)
            return
        rows = batch.row.tolist()
        self.scores[rows] = prediction.score.numpy()
        if self.localises:
            if self.pixels is None:
                self.pixels = ExactCurves() if self._pixel_count() <= FEW_PIXELS else self._histogram()
            self._update(self.pixels, rows, prediction.anomaly_map)

    def _histogram(self) -> Curves:
        from anomaly_lab.metrics.histogram import CurveState  # noqa: PLC0415 - only large test sets need it

        return CurveState(torch.cat(self.normal_maps).median().item())

    def _pixel_count(self) -> int:
        network = [self.data.geometry().size] * len(self.scores)
        sizes = self.data.test.sizes if self.resolution == "original" else network
        return sum(height * width for height, width in sizes)

    def _update(self, state: Curves, rows: list[int], maps: Tensor) -> None:
        """Add the pixels that show the photograph; padding and what a crop cut away count in no metric."""
        split = self.data.test
        for row, anomaly_map in zip(rows, maps.numpy(), strict=True):
            placement = split.placements[row]
            if self.resolution == "network":
                inside = placement.target.slices
                state.update_map(anomaly_map[inside], split.masks[row][inside])
            else:
                from anomaly_lab.data.restored import restore_map  # noqa: PLC0415 - seldom asked for

                file, size = split.records[row].mask, split.sizes[row]
                mask = np.zeros(size, bool) if file is None else read_mask(file, size)
                state.update_map(restore_map(anomaly_map, placement), mask[placement.source.slices])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute and write the numbers."""
        assert isinstance(pl_module, AnomalyMethod)
        labels = np.array([record.label for record in self.data.test.records])
        images = ExactCurves()
        images.update(self.scores, labels)
        metrics, curves = images.summary("image", self.fpr_limit), {"image": images.curves()}
        if self.pixels is not None:
            pixels = self._precise(self.pixels, trainer, pl_module)
            metrics |= pixels.summary("pixel", self.fpr_limit)
            curves["pixel"] = pixels.curves()
        metrics |= {name: metrics[true] for name, true in pl_module.printed.items() if true in metrics}
        metrics |= bootstrap_interval(self.scores, labels, np.random.default_rng(0), self.bootstrap)
        if self.data.normal.records:
            from anomaly_lab.metrics.threshold import threshold  # noqa: PLC0415 - most full recipes hold nothing out

            held_out = torch.cat(self.normal_scores).numpy()
            metrics |= threshold(held_out, self.target_fpr, self.scores, labels)
        if not images.curves():
            log.warning("no image metrics: all test images are of one kind, normal or anomalous")
        self.directory.write_json("metrics.json", metrics)
        named = {f"{level}_{name}": points for level, found in curves.items() for name, points in found.items()}
        self.directory.write_arrays("curves.npz", named)
        rows = zip(self.data.test.records, self.scores, strict=True)
        table = [(record.image.as_posix(), record.defect, int(record.label), float(score)) for record, score in rows]
        self.directory.write_table("predictions.csv", ("path", "defect", "label", "score"), table)

    def _precise(self, pixels: Curves, trainer: L.Trainer, method: AnomalyMethod) -> Curves:
        """Return the state, or, where the cells of a histogram are too coarse, one that sorts a second pass."""
        bound = pixels.error_bound(self.fpr_limit)
        if bound <= TOLERANCE:
            return pixels
        log.warning("pixel metrics could be off by %.1e: the test set is scored again and sorted exactly", bound)
        from anomaly_lab.callbacks.rescoring import predictions  # noqa: PLC0415 - seldom needed

        exact = ExactCurves()
        for rows, prediction in predictions(trainer, method, self.data.test, self.data.batch_size):
            self._update(exact, rows, prediction.anomaly_map)
        return exact
