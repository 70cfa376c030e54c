"""Per-pixel variation: the second control (Saeedi, Giusti, VISAPP 2022, baseline "Variation")."""

from typing import ClassVar, final

import torch
from torch import Tensor

from anomaly_lab.estimators.moments import Moments
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.types import Prediction


@final
class Variation(SinglePassMethod):
    """Scores how many standard deviations each pixel lies from its mean over the training images.

    What the paper leaves open: docs/methods/variation.md, notes 1 to 3.

    Args:
        std_floor: the least standard deviation, on the [0, 1] scale; constant pixels would blow up without
            it.
    """

    joins: ClassVar[bool] = True
    mean_: Tensor  # (3, H, W) float32
    std_: Tensor  # (3, H, W) float32

    def __init__(self, std_floor: float) -> None:
        super().__init__()
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("std_", torch.empty(0))
        self.std_floor = std_floor
        self.moments = Moments(joint=False)

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared deviation of each pixel, averaged over colours, and its sum as the score."""
        anomaly_map = ((image.float() - self.mean_) / self.std_).square().mean(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)))

    def update(self, image: Tensor) -> None:
        """Add the images to the moments."""
        self.moments.update(image)

    def finish(self) -> None:
        """Fit mean and standard deviation; one image alone has deviation 0, raised to the floor."""
        moments, self.moments = self.moments.of_all_ranks(), Moments(joint=False)
        self.mean_ = moments.origin + moments.mean
        self.std_ = (moments.scatter / moments.count).sqrt().clamp(min=self.std_floor)
