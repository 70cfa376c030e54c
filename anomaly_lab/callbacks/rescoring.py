"""Score images of a run once more, after the numbers: for pictures, for changed copies, for an exact second pass."""

from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor

from anomaly_lab.data.datasets import Split, as_tensor
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction


def predict_rows(trainer: L.Trainer, method: AnomalyMethod, split: Split, rows: list[int]) -> tuple[Tensor, Prediction]:
    """Score some rows of a split once more; returns the (N, 3, H, W) images and their prediction, on the CPU."""
    images = torch.stack([as_tensor(split.images[row]) for row in rows]).to(method.device).float() / 255
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        prediction = method(images)
    return images.cpu(), Prediction(*(value.cpu() for value in prediction))


def predictions(
    trainer: L.Trainer, method: AnomalyMethod, split: Split, batch_size: int
) -> Iterator[tuple[list[int], Prediction]]:
    """Yield the rows of a split, some at a time and in order, with their prediction, on the CPU."""
    for start in range(0, len(split.records), batch_size):
        rows = list(range(len(split.records)))[start : start + batch_size]
        yield rows, predict_rows(trainer, method, split, rows)[1]
