"""Streams the test predictions into what evaluation and pictures are made of."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, final

import lightning as L
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.doubts import Observed, Sameness
from anomaly_lab.evaluation.metrics.curves import Curves, ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves
from anomaly_lab.evaluation.pixels import add_maps
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.types import EvalBatch, ImageRecord, Prediction

log = logging.getLogger(__name__)
TOLERANCE = 1e-5  # a histogram that can be off by more is not believed
FEW_PIXELS = 2**24  # sorting every score of so many takes less memory (64 MiB) than the histogram


class Scored(NamedTuple):
    """What a method said of a test set; row i of everything belongs to record i."""

    records: list[ImageRecord]
    scores: np.ndarray  # (N,) float32
    held_out: np.ndarray  # (M,) float32 scores of the normals kept for the threshold; (0,) if none were kept
    pixels: Curves | None  # None where no pixel metric can be had
    maps: np.ndarray | None  # (N, H, W) float32, if they were asked for
    embedding: np.ndarray | None  # (N, D) float32, if asked for and the method embeds an image
    seen: Observed = Observed()
    latents: Mapping[str, np.ndarray] = MappingProxyType({})  # the method's further (N, D) float32 vectors

    @property
    def labels(self) -> np.ndarray:
        """(N,) bool, True = anomalous."""
        return np.array([record.label for record in self.records])


@final
class Collector(L.Callback):
    """Takes in the batches of one test; memory does not grow with the test set unless maps are asked for.

    Of several ranks each takes in its own rows, and hands them to the first when all are done.
    """

    def __init__(self, data: AnomalyDataModule, how: EvaluationSettings) -> None:
        self.data = data
        self.how = how

    def collect(self, trainer: L.Trainer, method: AnomalyMethod, predictor: Predictor) -> Scored:
        """Score the kept normals, then the test set; a second time if the pixels' histogram is too coarse.

        Args:
            trainer: has this collector among its callbacks.
            method: is tested.
            predictor: computes with the method.

        Returns:
            All of it on the first rank; on the others the scores are their own alone.
        """
        self.predictor = predictor
        kept, self.normal_maps = self._normals()
        trainer.test(method, datamodule=self.data, verbose=False)
        self._hand_in()
        held_out = kept if self.data.normal.records else kept[:0]
        embedding = np.concatenate(self.embeddings) if self.embeddings else None
        test = self.data.test
        normal_rows = [row for row, record in enumerate(test.records) if not record.label]
        seen = Observed(
            self.sameness.compute() if method.localises else None,
            self.data.train.greys,
            test.greys[normal_rows],
            tuple(method.doubts()),
        )
        latents = {name: np.concatenate(found) for name, found in self.latents.items()}
        return Scored(
            test.records, self.scores, held_out, self._precise(), self.maps, embedding, seen, latents
        )

    def _normals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores (M,) of the kept normals, and every fourth row and column of their maps."""
        images = self.data.centring_images()
        size = here.portion(self.data.batch_size)
        found = [
            (prediction.score.numpy(), prediction.anomaly_map[:, ::4, ::4].numpy())
            for _, prediction in self.predictor.batches(images[here.rows(len(images))], size)
        ]
        scores, maps = zip(*(pair for rank in exchange.gathered(found) for pair in rank), strict=True)
        return np.concatenate(scores), np.concatenate(maps)

    def _hand_in(self) -> None:
        """Join, on the first rank, what each has taken in; the rows of the ranks follow each other."""
        own = here.rows(len(self.scores))
        maps = None if self.maps is None else self.maps[own]
        vectors = self.embeddings, self.latents
        taken = (own, self.scores[own], maps, vectors, self.sameness, self.pixels)
        for rows, scores, maps, (embeddings, latents), sameness, pixels in exchange.handed_in(taken):
            self.scores[rows] = scores
            if self.maps is not None:
                self.maps[rows] = maps
            self.embeddings += embeddings
            for name, found in latents.items():
                self.latents[name] += found
            self.sameness.merge(sameness)
            if self.pixels is not None:
                self.pixels.merge(pixels)  # type: ignore[arg-type]  # there is one on all or on none

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        assert isinstance(pl_module, AnomalyMethod)
        count = len(self.data.test.records)
        self.scores = np.full(count, np.nan, np.float32)
        self.maps = np.zeros((count, *self.data.geometry().size), np.float32) if self.how.save_maps else None
        self.embeds = True
        self.embeddings: list[np.ndarray] = []
        self.latents: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self.sameness = Sameness()
        self.pixels: Curves | None = None
        unmasked = self.data.unmasked()
        if unmasked:
            log.warning("no pixel metrics: %d anomalous test images have no mask", unmasked)
        elif pl_module.localises:
            few = self._pixel_count() <= FEW_PIXELS
            self.pixels = (
                ExactCurves() if few else HistogramCurves(float(torch.from_numpy(self.normal_maps).median()))
            )

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in one batch, whose rows follow those of the one before."""
        assert isinstance(pl_module, AnomalyMethod)
        prediction = Prediction(*(value.cpu() for value in outputs))
        rows = batch.row.tolist()
        self.scores[rows] = prediction.score.numpy()
        self.sameness.update(prediction.anomaly_map[:, ::4, ::4].numpy())
        if self.maps is not None:
            self.maps[rows] = prediction.anomaly_map.numpy()
        if self.pixels is not None:
            self._update(self.pixels, rows, prediction.anomaly_map)
        if self.how.overlays > 0:
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                self._embed(pl_module, batch.image)

    def _embed(self, method: AnomalyMethod, image: Tensor) -> None:
        """Take in a batch's vectors, of which pictures are made."""
        embedding = method.embed(image) if self.embeds else None
        self.embeds = embedding is not None
        self.embeddings += [] if embedding is None else [embedding.float().cpu().numpy()]
        for name, vectors in method.latents(image).items():
            self.latents[name].append(vectors.float().cpu().numpy())

    def _pixel_count(self) -> int:
        network = [self.data.geometry().size] * len(self.scores)
        sizes = self.data.test.sizes if self.how.resolution == "original" else network
        return sum(height * width for height, width in sizes)

    def _update(self, state: Curves, rows: list[int], maps: Tensor) -> None:
        """Add the pixels of a batch that show the photograph."""
        add_maps(state, self.data.test, zip(rows, maps.numpy(), strict=True), self.how)

    def _precise(self) -> Curves | None:
        """Return the state, or one that sorts a second pass where the cells of a histogram are too coarse."""
        bound = 0.0 if self.pixels is None else self.pixels.error_bound(self.how.fpr_limit)
        bound = exchange.told(bound)  # the first rank's, which knows all rows
        if bound <= TOLERANCE:
            return self.pixels
        log.warning(
            "pixel metrics could be off by %.1e: the test set is scored again and sorted exactly", bound
        )
        exact = ExactCurves()
        images = self.data.test.images
        own = here.rows(len(images))
        for rows, prediction in self.predictor.batches(images[own], here.portion(self.data.batch_size)):
            self._update(exact, [own.start + row for row in rows], prediction.anomaly_map)
        for other in exchange.handed_in(exact):
            exact.merge(other)
        return exact
