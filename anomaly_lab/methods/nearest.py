"""Nearest training image: the control that any method must beat.

Saeedi, Giusti, VISAPP 2022, baseline "NN".
"""

from typing import final

import torch
from torch import Tensor

from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.types import Prediction


@final
class Nearest(FittedMethod):
    """Scores an image by its Euclidean distance, over all pixels, to the nearest training image.

    What the paper leaves open: docs/methods/nearest.md, notes 1 to 3.
    """

    bank_: Tensor  # (N, 3, H, W) float32, the training images

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank_", torch.empty(0))

    def forward(self, image: Tensor) -> Prediction:
        """Return the map and the distance.

        The map is the squared difference to the nearest image, summed over colours.
        """
        # The faster matrix product loses digits in the difference of two close images, and with them the
        # nearest one.
        direct = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(image.float().flatten(1), self.bank_.flatten(1), compute_mode=direct)
        nearest = self.bank_[distance.argmin(dim=1)]
        anomaly_map = (image.float() - nearest).square().sum(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)).sqrt())

    def collect(self, image: Tensor) -> Tensor:
        """Keep the images."""
        return image

    def fit(self, collected: Tensor) -> None:
        """Make them the bank."""
        self.bank_ = collected
