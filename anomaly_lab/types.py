"""The values that cross the boundaries: what data hands to methods, and what methods hand back."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

# Annotated[int, EVALUATION_ONLY] marks an argument that training does not depend on: changing it needs no
# training.
EVALUATION_ONLY = "evaluation only"
# Annotated[int, SAME_RUN] marks an argument that no result depends on: changing it makes no other run.
SAME_RUN = "same run"
# Annotated[str, PRETRAINED] marks an argument that says which weights a network starts from.
PRETRAINED = "pretrained weights"


def in_unit_range(image: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [0, 1], which crosses every boundary from here on."""
    return image.float().div_(255)


class ImageRecord(NamedTuple):
    """One listed file. ``mask`` is None for a normal image and for an anomalous one without ground truth."""

    image: Path
    mask: Path | None  # a file, or a folder of files whose union it is
    label: bool  # True = anomalous
    defect: str  # the folder's name, "good" for a normal image


class Picture(NamedTuple):
    """A picture of a run, as drawn."""

    file: Path
    series: str  # alike for pictures that are looked at one after the other
    caption: str  # a line


class TrainBatch(NamedTuple):
    """A training batch. Its label is for supervised methods; all others are handed normal images alone.

    Of a labelled training anomaly ``image`` and ``clean`` are the same photograph, and ``mask`` is its ground
    truth, all False where it has none.
    """

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]; anomalous where mask is True
    clean: Tensor  # (B, 3, H, W) float32 in [0, 1]; the same image before synthesis
    mask: Tensor  # (B, H, W) bool; no pixel changes outside it
    label: Tensor  # (B,) bool, True = a photograph of a defect; pseudo anomalies do not count


class EvalBatch(NamedTuple):
    """A batch to be scored; its truth stays with the records."""

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]
    row: Tensor  # (B,) int64; rows of the split that is scored


class Prediction(NamedTuple):
    """What a method says of a batch: raw, unbounded scores; higher is more anomalous."""

    anomaly_map: Tensor  # (B, H, W) float32
    score: Tensor  # (B,) float32


class Training(NamedTuple):
    """What a method is told of its training before it begins."""

    steps: int  # of the optimizer, in the whole training
    epochs: int  # begun ones; the last may be cut short
    precision: str  # Lightning's name: 32-true, bf16-mixed or 16-mixed
    each_once: bool  # an epoch draws each training image exactly once
    augmented: bool  # the images that training sees are turned or otherwise transformed
    pseudo: bool  # pseudo anomalies are among them
    # the training images as they are, (B, 3, H, W) float32 in [0, 1], from the first to the last
    normals: Iterable[Tensor]
    ranks: int = 1  # processes that share each batch
    anomalies: int = 0  # labelled photographs of defects, for supervised methods
    kept: Iterable[Tensor] = ()  # the normal images that data.holdout keeps from training, as `normals`
