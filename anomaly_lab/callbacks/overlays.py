"""Pictures of a run: the worst misses and some hits, all on one scale."""

import re
from typing import Any, final

import cv2
import lightning as L
import numpy as np
import torch

from anomaly_lab.callbacks.figures import Figures
from anomaly_lab.callbacks.pictures import png
from anomaly_lab.callbacks.rescoring import predict_rows
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.results import RunDirectory
from anomaly_lab.types import EvalBatch, Prediction


@final
class Overlays(L.Callback):
    """Writes maps/*.png: input, what the method adds (a reconstruction), anomaly map, ground truth.

    Half of ``count`` are misses (anomalous images of the lowest score, normal ones of the highest in turn), half hits
    (anomalous, from the highest score down). ``save_maps`` keeps every float32 map, maps/maps.npz.
    """

    def __init__(self, directory: RunDirectory, data: AnomalyDataModule, count: int, save_maps: bool) -> None:  # noqa: FBT001
        self.directory, self.data, self.count, self.save_maps = directory, data, count, save_maps

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        self.scores = np.zeros(len(self.data.test.records), np.float32)
        self.maps: dict[str, np.ndarray] = {}

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember the scores of the test set, and the maps if they are wanted."""
        if dataloader_idx == 1:
            rows, prediction = batch.row.tolist(), Prediction(*(value.cpu() for value in outputs))
            self.scores[rows] = prediction.score.numpy()
            if self.save_maps:
                self.maps |= {f"{row:05d}": m.numpy() for row, m in zip(rows, prediction.anomaly_map, strict=True)}

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        assert isinstance(pl_module, AnomalyMethod)
        if self.save_maps:
            self.directory.write_arrays("maps/maps.npz", self.maps)
        chosen = choose(self.scores, np.array([record.label for record in self.data.test.records]), self.count)
        if not chosen:
            return
        rows = [row for _, row in chosen]
        images, prediction = predict_rows(trainer, pl_module, self.data.test, rows)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            extra = pl_module.panels(images.to(pl_module.device))
        low, high = prediction.anomaly_map.median().item(), prediction.anomaly_map.max().item()
        threshold = self.directory.metrics().get("threshold")
        limit = "" if threshold is None else f", threshold {threshold:.4g}"
        for position, (kind, row) in enumerate(chosen):
            picture = uint8(images[position])
            drawn = {name: value[position].float().cpu() for name, value in extra.items()}
            panels = {"input": picture} | {
                name: uint8(value) if value.ndim == 3 else colour(value.numpy(), low, high)
                for name, value in drawn.items()
            }
            record = self.data.test.records[row]
            truth = "ground truth" if record.mask else "no mask" if record.label else "ground truth: no defect"
            if pl_module.localises:
                heat = colour(prediction.anomaly_map[position].numpy(), low, high)
                panels |= {f"map: dark {low:.3g}, bright {high:.3g}": heat}
            panels |= {truth: outline(picture, self.data.test.masks[row])}
            stem = re.sub(r"[^\w.-]", "_", f"{record.defect}-{record.image.stem}"[:100])
            title = f"{kind}  {record.defect}/{record.image.name}  score {self.scores[row]:.4g}{limit}"
            with self.directory.replacing(f"maps/{position:02d}-{kind}-{stem}.png") as file:
                file.write_bytes(png(sheet(title, panels)))


def drawing(directory: RunDirectory, data: AnomalyDataModule, count: int, save_maps: bool) -> list[L.Callback]:  # noqa: FBT001
    """Return who draws a run's pictures; where no overlay is wanted, neither are the figures."""
    overlays = Overlays(directory, data, count, save_maps)
    return [Figures(directory, data), overlays] if count else [overlays]


def choose(scores: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[str, int]]:
    """Return (kind, row) of the pictures: misses first, then hits; no row twice."""
    order = np.argsort(scores, kind="stable")
    anomalous, normal = order[labels[order]].tolist(), order[~labels[order]][::-1].tolist()
    missed = [("lowest-defective", row) for row in anomalous[: len(anomalous) // 2]]
    false = [("highest-good", row) for row in normal]
    misses = [pair for both in zip(missed, false, strict=False) for pair in both] or missed or false
    misses = misses[: count // 2]
    hits = [row for row in anomalous[::-1] if ("lowest-defective", row) not in misses]
    return misses + [("highest-defective", row) for row in hits[: count - len(misses)]]


def uint8(image: torch.Tensor) -> np.ndarray:
    """Return a (3, H, W) picture in [0, 1] as (H, W, 3) uint8; values beyond are clipped."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def colour(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the map as (H, W, 3) uint8 RGB, dark at ``low``, bright at ``high``."""
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    return np.ascontiguousarray(cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the mask's contour drawn on it."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image.copy(), contours, -1, (255, 40, 40), 1)


def sheet(title: str, panels: dict[str, np.ndarray]) -> np.ndarray:
    """Return the panels side by side, enlarged to at least 224 px, each with its name, under a title."""
    tall = max(224, next(iter(panels.values())).shape[0])
    columns = []
    for name, panel in panels.items():
        wide = round(panel.shape[1] * tall / panel.shape[0])
        column = np.full((tall + 22, wide + 6, 3), 255, np.uint8)
        column[22:, 3:-3] = cv2.resize(panel, (wide, tall), interpolation=cv2.INTER_NEAREST)
        columns.append(write(column, name, 15))
    body = np.concatenate(columns, axis=1)
    head = write(np.full((26, body.shape[1], 3), 255, np.uint8), title, 18)
    return np.concatenate([head, body])


def write(canvas: np.ndarray, text: str, baseline: int) -> np.ndarray:
    """Write a line of text near the top; what OpenCV's font lacks becomes a question mark."""
    plain = text.encode("ascii", "replace").decode()
    return cv2.putText(canvas, plain, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
