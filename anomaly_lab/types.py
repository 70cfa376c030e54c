"""The values that cross the boundaries: what data hands to methods, and what methods hand back."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

# Annotated[int, EVALUATION_ONLY] marks an argument that training does not depend on: changing it needs no training.
EVALUATION_ONLY = "evaluation only"


class ImageRecord(NamedTuple):
    """One listed file. ``mask`` is None for a normal image and for an anomalous one without ground truth."""

    image: Path
    mask: Path | None  # a file, or a folder of files whose union it is
    label: bool  # True = anomalous
    defect: str  # the folder's name, "good" for a normal image


class TrainBatch(NamedTuple):
    """A training batch; it carries no label to peek at."""

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]; anomalous where mask is True
    clean: Tensor  # (B, 3, H, W) float32 in [0, 1]; the same image before synthesis
    mask: Tensor  # (B, H, W) bool; no pixel changes outside it


class EvalBatch(NamedTuple):
    """A batch to be scored."""

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]
    mask: Tensor  # (B, H, W) bool; ground truth, all False for a normal image
    label: Tensor  # (B,) bool
    row: Tensor  # (B,) int64; row of the datamodule's records, where paths and defects stay


class Prediction(NamedTuple):
    """What a method says of a batch: raw, unbounded scores; higher is more anomalous."""

    anomaly_map: Tensor  # (B, H, W) float32
    score: Tensor  # (B,) float32
