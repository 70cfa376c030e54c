"""DRAEM: Zavrtanik, Kristan, Skočaj, ICCV 2021.

"DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection". Notes are those
of docs/methods/draem.md; "the code" is the authors'.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import draem_loss
from anomaly_lab.layers.schedules import check_schedule, stepped_adam
from anomaly_lab.layers.scorer import Scorer
from anomaly_lab.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork, fast_layout, initialise
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch


@final
class Draem(AnomalyMethod):
    """Reconstructs a normal image from an anomalous one, then tells from both where they differ.

    Args:
        reconstructive_width: channels of the first level of the reconstruction network; the paper's is 128.
        discriminative_width: channels of the first level of the U-Net; the paper's is 64.
        ssim_weight: of the structural loss beside the squared error and the focal loss; 1 in the code.
        ssim_range: of the values inside SSIM: ``guessed`` as in the code (note 9), ``unit`` is 1.
        focal_gamma: exponent of the focal loss, 0 or at least 1; 2 in the code.
        learning_rate: of Adam, for both networks; 1e-4 in the code.
        warmup: share of all steps in which the rate rises linearly from 0.
        milestones: shares of all steps after which the rate is multiplied by ``gamma``.
        gamma: of the rate, not of the focal loss; 0.2 in the code, 0.1 in the text (note 10).
        scorer: from the (B, H, W) map to the (B,) scores.

    Raises:
        ConfigError: a width, ``focal_gamma`` or a value of the schedule is out of its range.
    """

    pseudo = True
    stride = 32  # the U-Net halves the sides five times

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        reconstructive_width: int,
        discriminative_width: int,
        ssim_weight: float,
        ssim_range: Literal["unit", "guessed"],
        focal_gamma: float,
        learning_rate: float,
        warmup: float,
        milestones: Sequence[float],
        gamma: float,
        scorer: Scorer,
    ) -> None:
        super().__init__()
        if min(reconstructive_width, discriminative_width) < 1:
            raise ConfigError("model.reconstructive_width and model.discriminative_width must be at least 1")
        if focal_gamma < 0 or 0 < focal_gamma < 1:  # the gradient of (1 - p)^gamma is infinite at p = 1
            raise ConfigError(f"model.focal_gamma: {focal_gamma}; give 0 or at least 1")
        check_schedule({"learning_rate": learning_rate}, warmup, milestones, gamma)
        self.reconstructive = ReconstructiveNetwork(reconstructive_width)
        self.discriminative = DiscriminativeNetwork(3 + 3, discriminative_width)  # reconstruction and image
        self.layout = fast_layout(reconstructive_width)
        self.apply(initialise).to(memory_format=self.layout)
        self.loss = partial(
            draem_loss, ssim_weight=ssim_weight, ssim_range=ssim_range, focal_gamma=focal_gamma
        )
        self.learning_rate = learning_rate
        self.warmup = warmup
        self.milestones = milestones
        self.gamma = gamma
        self.scorer = scorer

    def forward(self, image: Tensor) -> Prediction:
        """Score by the U-Net's probability of being anomalous (docs/methods/draem.md, note 11)."""
        _, probability = self._reconstruct_and_compare(image)
        return self.scorer(probability)

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Train both networks together; the focal loss trains both (docs/methods/draem.md, note 8)."""
        reconstruction, probability = self._reconstruct_and_compare(batch.image)
        losses = self.loss(reconstruction, probability, batch)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def _reconstruct_and_compare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, 3, H, W) reconstruction and the (B, H, W) probability that a pixel is anomalous."""
        image = image.contiguous(memory_format=self.layout)
        reconstruction, _ = self.reconstructive(image)
        logits = self.discriminative(torch.cat([reconstruction, image], dim=1))
        return reconstruction, logits.softmax(dim=1)[:, 1]

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Show the reconstruction."""
        return {"reconstruction": self.reconstructive(image)[0]}

    def configure_optimizers(self) -> Any:
        """Give both networks one Adam, whose rate falls in steps (note 10)."""
        groups = [{"params": list(self.parameters()), "lr": self.learning_rate}]
        return stepped_adam(groups, self.plan.steps, self.warmup, self.milestones, self.gamma)
