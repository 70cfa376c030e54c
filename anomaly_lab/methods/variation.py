"""Per-pixel variation: the second control (Saeedi, Giusti, VISAPP 2022, baseline "Variation")."""

from typing import final

import torch
from torch import Tensor

from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.types import Prediction


@final
class Variation(FittedMethod):
    """Scores how many standard deviations each pixel lies from its mean over the training images.

    What the paper leaves open: docs/methods/variation.md, notes 1 to 3.

    Args:
        std_floor: the least standard deviation, on the [0, 1] scale; constant pixels would blow up without
            it.
    """

    mean_: Tensor  # (3, H, W) float32
    std_: Tensor  # (3, H, W) float32

    def __init__(self, std_floor: float) -> None:
        super().__init__()
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("std_", torch.empty(0))
        self.std_floor = std_floor

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared deviation of each pixel, averaged over colours, and its sum as the score."""
        anomaly_map = ((image.float() - self.mean_) / self.std_).square().mean(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)))

    def collect(self, image: Tensor) -> Tensor:
        """Keep the images."""
        return image

    def fit(self, collected: Tensor) -> None:
        """Fit mean and standard deviation; one image alone has deviation 0, raised to the floor."""
        self.mean_ = collected.mean(dim=0)
        self.std_ = collected.std(dim=0, correction=0).clamp(min=self.std_floor)
