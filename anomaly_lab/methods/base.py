"""The contract of a detector."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning as L
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.types import EvalBatch, Prediction, TrainBatch


@runtime_checkable
class Sized(Protocol):
    """A part of a method that takes images of some sizes only."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless images of this size fit."""


class AnomalyMethod(L.LightningModule, ABC):
    """A whole detector: it trains on `TrainBatch` and says a `Prediction` of images.

    What is learned by a fit instead of by gradients lies in buffers whose names end in ``_``.
    """

    localises: ClassVar[bool] = True  # False: the map means nothing, so no pixel metric is computed
    printed: ClassVar[dict[str, str]] = {}  # a name that the paper prints a metric under, and the metric that it is
    pseudo: ClassVar[bool] = False  # True: it learns from pseudo anomalies, else from normal images alone
    stride: int = 1  # the sides of an image must be multiples of this
    steps: int = 0  # of the optimizer in the whole training; the run sets it before it fits

    @abstractmethod
    def forward(self, image: Tensor) -> Prediction:
        """Score a (B, 3, H, W) float32 batch in [0, 1]."""

    @abstractmethod
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor | None:
        """Return the loss, or None where nothing is learned by gradients."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless images of this size fit; two strides leave a batch norm more than one value."""
        if height % self.stride or width % self.stride or min(height, width) < 2 * self.stride > 2:
            wanted = f"multiples of {self.stride} from {2 * self.stride} on"
            raise ConfigError(f"data.image_size: {type(self).__name__} takes {wanted}, not {height} x {width}")
        for part in self.children():
            if isinstance(part, Sized):
                part.check_size(height, width)

    def test_step(self, batch: EvalBatch, batch_idx: int, dataloader_idx: int = 0) -> Any:  # noqa: ARG002
        """Hand the `Prediction` to the callbacks."""
        return self(batch.image)

    def panels(self, image: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - most methods have no picture to add
        """Return further panels for the overlays of a run, by name: (B, 3, H, W) pictures or (B, H, W) maps."""
        return {}

    def embed(self, image: Tensor) -> Tensor | None:  # noqa: ARG002 - most methods score no vector
        """Return the (B, D) float32 vectors that a method scores whole images by, or None."""
        return None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give learned buffers the checkpoint's shapes, which loading demands."""
        for name, value in checkpoint["state_dict"].items():
            owner, _, leaf = name.rpartition(".")
            if leaf.endswith("_"):
                self.get_submodule(owner).register_buffer(leaf, torch.empty_like(value))
