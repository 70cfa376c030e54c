"""Per-pixel variation: the second control (Saeedi, Giusti, VISAPP 2022, baseline "Variation")."""

from typing import Any, final

import torch
from torch import Tensor

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch


@final
class Variation(AnomalyMethod):
    """Scores how many standard deviations each pixel lies from its mean over the training images (methods 3.4).

    Args:
        std_floor: the least standard deviation, on the [0, 1] scale; constant pixels would blow up without it.
    """

    mean_: Tensor  # (3, H, W) float32
    std_: Tensor  # (3, H, W) float32

    def __init__(self, std_floor: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("std_", torch.empty(0))
        self.std_floor = std_floor
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared deviation of each pixel, averaged over colours, and its sum as the score."""
        anomaly_map = ((image.float() - self.mean_) / self.std_).square().mean(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)))

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Collect the images."""
        self.seen.append(batch.clean)

    def on_train_epoch_end(self) -> None:
        """Fit mean and standard deviation; one image alone has deviation 0, raised to the floor."""
        images, self.seen = torch.cat(self.seen), []
        self.mean_ = images.mean(dim=0)
        self.std_ = images.std(dim=0, correction=0).clamp(min=self.std_floor)

    def configure_optimizers(self) -> Any:
        """Nothing is learned by gradients."""
        return []
