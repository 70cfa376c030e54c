"""DRAEM: Zavrtanik, Kristan, Skočaj, ICCV 2021.

"DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection". Notes are those
of docs/methods/draem.md; "the code" is the authors'.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.draem_weights import check_released, load_released
from anomaly_lab.layers.losses import draem_loss
from anomaly_lab.layers.schedules import check_schedule, stepped_adam
from anomaly_lab.layers.scorer import Scorer
from anomaly_lab.layers.similarity import msgms_map, ssim_map
from anomaly_lab.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork, fast_layout, initialise
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import PRETRAINED, Prediction, TrainBatch

Networks = Literal["both", "discriminator", "reconstruction_ssim", "reconstruction_msgms"]


@final
class Draem(AnomalyMethod):
    """Reconstructs a normal image from an anomalous one, then tells from both where they differ.

    Args:
        reconstructive_width: channels of the first level of the reconstruction network; the paper's is 128.
        discriminative_width: channels of the first level of the U-Net; the paper's is 64.
        networks: ``both``, or a row of the paper's Table 3 (note 15): the ``discriminator`` on the image
            alone, or the reconstruction alone, with the map of SSIM or MSGMS.
        init_from: ``random``, or a FILE, the NAME.pckl of the authors' checkpoints, with NAME_seg.pckl beside
            it (note 16).
        ssim_weight: of the structural loss beside the squared error and the focal loss; 1 in the code.
        ssim_range: of the values inside SSIM: ``guessed`` as in the code (note 9), ``unit`` is 1.
        focal_gamma: exponent of the focal loss, 0 or at least 1; 2 in the code.
        learning_rate: of Adam, for both networks; 1e-4 in the code.
        warmup: share of all steps in which the rate rises linearly from 0.
        milestones: shares of all steps after which the rate is multiplied by ``gamma``.
        gamma: of the rate, not of the focal loss; 0.2 in the code, 0.1 in the text (note 10).
        scorer: from the (B, H, W) map to the (B,) scores.

    Raises:
        ConfigError: a width, ``focal_gamma`` or a value of the schedule is out of its range, or a file of
            weights is not there.
    """

    pseudo = True
    stride = 32  # the U-Net halves the sides five times

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        reconstructive_width: int,
        discriminative_width: int,
        networks: Networks,
        init_from: Annotated[str, PRETRAINED],
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
        self.networks = networks
        self.init_from = init_from
        self.ready = init_from != "random"
        if self.ready:
            if networks != "both":
                raise ConfigError(f"model.networks: {networks}, but model.init_from has both; give both")
            check_released(init_from)
        reconstructs = networks != "discriminator"
        discriminates = networks in {"both", "discriminator"}
        seen = 3 + 3 if reconstructs else 3  # reconstruction and image
        self.reconstructive = ReconstructiveNetwork(reconstructive_width) if reconstructs else None
        self.discriminative = DiscriminativeNetwork(seen, discriminative_width) if discriminates else None
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

    def setup(self, stage: str) -> None:
        """Load the authors' weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit" and self.reconstructive and self.discriminative and self.ready:
            load_released(self.reconstructive, self.discriminative, self.init_from)

    def forward(self, image: Tensor) -> Prediction:
        """Score by the U-Net's probability of being anomalous (docs/methods/draem.md, note 11).

        Of the reconstruction alone, by how little it resembles the image (note 15).
        """
        reconstruction, probability = self._reconstruct_and_compare(image)
        if probability is None:
            compare = ssim_map if self.networks == "reconstruction_ssim" else msgms_map
            assert reconstruction is not None
            probability = compare(reconstruction, image)
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

    def _reconstruct_and_compare(self, image: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the (B, 3, H, W) reconstruction and the (B, H, W) probability that a pixel is anomalous.

        What there is no network for is None.
        """
        image = image.contiguous(memory_format=self.layout)
        reconstruction = None if self.reconstructive is None else self.reconstructive(image)[0]
        if self.discriminative is None:
            return reconstruction, None
        seen = image if reconstruction is None else torch.cat([reconstruction, image], dim=1)
        logits = self.discriminative(seen)
        return reconstruction, logits.softmax(dim=1)[:, 1]

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Show the reconstruction, where there is one."""
        return {} if self.reconstructive is None else {"reconstruction": self.reconstructive(image)[0]}

    def configure_optimizers(self) -> Any:
        """Give the networks one Adam, whose rate falls in steps (note 10)."""
        groups = [{"params": list(self.parameters()), "lr": self.learning_rate}]
        return stepped_adam(groups, self.plan.steps, self.warmup, self.milestones, self.gamma)
