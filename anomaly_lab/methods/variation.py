"""Per-pixel variation: the second control (Saeedi, Giusti, VISAPP 2022, baseline "Variation")."""

from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from anomaly_lab.estimators.moments import Moments
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.types import Prediction

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


@final
class Variation(SinglePassMethod):
    """Scores how many standard deviations each pixel lies from its mean over the training images.

    What the paper leaves open: docs/methods/variation.md, notes 1 to 3.

    Args:
        colours: ``grey`` has one value a pixel, as the paper; ``rgb`` three, whose squared deviations are
            averaged.
        std_floor: the least standard deviation, on the [0, 1] scale; constant pixels would blow up without
            it.
    """

    joins: ClassVar[bool] = True
    mean_: Tensor  # (C, H, W) float32, C being 3 for rgb and 1 for grey
    std_: Tensor  # (C, H, W) float32

    def __init__(self, colours: Literal["rgb", "grey"], std_floor: float) -> None:
        super().__init__()
        self.colours = colours
        self.register_buffer("mean_", torch.empty(0))
        self.register_buffer("std_", torch.empty(0))
        self.std_floor = std_floor
        self.moments = Moments(joint=False)

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared deviation of each pixel, averaged over colours, and its sum as the score."""
        anomaly_map = ((self._values(image) - self.mean_) / self.std_).square().mean(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)))

    def update(self, image: Tensor) -> None:
        """Add the images to the moments."""
        self.moments.update(self._values(image))

    def _values(self, image: Tensor) -> Tensor:
        """Return the (B, C, H, W) float32 values that are compared."""
        if self.colours == "rgb":
            return image.float()
        values = image.float()
        return LUMA[0] * values[:, :1] + LUMA[1] * values[:, 1:2] + LUMA[2] * values[:, 2:]

    def finish(self) -> None:
        """Fit mean and standard deviation; one image alone has deviation 0, raised to the floor."""
        moments, self.moments = self.moments.of_all_ranks(), Moments(joint=False)
        self.mean_ = moments.origin + moments.mean
        self.std_ = (moments.scatter / moments.count).sqrt().clamp(min=self.std_floor)
