"""The contract of a detector."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import lightning as L
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.types import EvalBatch, Prediction, TrainBatch, Training


@runtime_checkable
class Sized(Protocol):
    """A part of a method that takes images of some sizes only."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless images of this size fit."""


class AnomalyMethod(L.LightningModule, ABC):
    """A whole detector: it trains on `TrainBatch` and returns a `Prediction` of images.

    It is told of its training by `tell`, and asks neither the trainer nor the data. What is learned by a fit
    instead of by gradients lies in buffers whose names end in ``_``.

    Attributes:
        localises: whether the map means anything; if not, no pixel metric is computed.
        printed: metrics that the paper prints under another name: that name to ours.
        pseudo: whether it learns from pseudo anomalies; if not, from normal images alone.
        supervised: whether it learns from labelled defects, too; only such a method may read a batch's label.
        stride: the sides of an image must be multiples of this, and two of it at least if it is above 1.
        seen: what was gathered of the running epoch and lies in no weight or buffer; while there is any, no
            state is saved before the epoch ends.
        ready: whether its weights come trained, so that no step need be made.
        partial: whether a step may leave some of the weights without a gradient, of which several processes
            must know beforehand.
        plan: what `tell` told; absent before.
    """

    localises: ClassVar[bool] = True
    printed: ClassVar[dict[str, str]] = {}
    pseudo: ClassVar[bool] = False
    supervised: ClassVar[bool] = False
    stride: int = 1
    seen: Sequence[Tensor] = ()
    partial: bool = False
    ready: bool = False
    plan: Training

    @abstractmethod
    def forward(self, image: Tensor) -> Prediction:
        """Score a (B, 3, H, W) float32 batch in [0, 1]."""

    @abstractmethod
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor | None:
        """Return the loss, or None where nothing is learned by gradients."""

    @final
    def tell(self, training: Training) -> None:
        """Say, before a fit, what the training will be. ConfigError: this method cannot be trained so."""
        name = type(self).__name__
        if training.anomalies and not self.supervised:
            raise ConfigError(f"data.train_anomalies: {name} learns from normal images alone; give 0")
        if self.supervised and not training.anomalies:
            way_out = "give how many defective images of the test set it may learn from"
            raise ConfigError(f"data.train_anomalies: {name} is supervised; {way_out}")
        if not training.steps and not self.ready:
            raise ConfigError(f"trainer.step_limit: 0, but {name} has no trained weights; give null")
        self.check_training(training)
        self.plan = training

    def check_training(self, training: Training) -> None:
        """Raise ConfigError unless the method can be trained so; most can be in any way."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless images of this size fit.

        Where the network shrinks an image, a side has at least two strides: with one, the deepest map is a
        single value, too few for a batch norm.
        """
        few = self.stride > 1 and min(height, width) < 2 * self.stride
        if height % self.stride or width % self.stride or few:
            wanted = f"multiples of {self.stride} from {2 * self.stride} on"
            raise ConfigError(
                f"data.image_size: {type(self).__name__} takes {wanted}, not {height} x {width}"
            )
        for part in self.children():
            if isinstance(part, Sized):
                part.check_size(height, width)

    def test_step(self, batch: EvalBatch, batch_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Hand the `Prediction` to the callbacks."""
        return self(batch.image)

    # Most methods have no picture to add.
    def panels(self, image: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return further panels for a run's overlays, by name: (B, 3, H, W) pictures or (B, H, W) maps."""
        return {}

    def embed(self, image: Tensor) -> Tensor | None:  # noqa: ARG002 - most methods score no vector
        """Return the (B, D) float32 vectors that a method scores whole images by, or None."""
        return None

    # Most methods have none.
    def latents(self, image: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return further (B, D) float32 vectors, by a name of letters, whose places are drawn, too."""
        return {}

    # Most methods know of nothing.
    def doubts(self) -> list[str]:
        """Return what of the last test makes its numbers doubtful, a line each."""
        return []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give learned buffers the checkpoint's shapes, which loading demands."""
        for name, value in checkpoint["state_dict"].items():
            owner, _, leaf = name.rpartition(".")
            if leaf.endswith("_"):
                self.get_submodule(owner).register_buffer(leaf, torch.empty_like(value))
