"""A capsule network for few anomalies: Piciarelli, Mishra, Foresti, ICIAP 2019.

"Image Anomaly Detection with Capsule Networks and Imbalanced Datasets". It is supervised: labelled anomalies,
few beside the normal images, are part of the training.
"""

from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.capsnet.network import CapsuleNetwork, lengths, of_class
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch


@final
class CapsNet(AnomalyMethod):
    """Classifies by the lengths of two capsules, and learns to reconstruct normal images alone.

    The paper's change to CapsNet is `reconstruct`: only normal images have a reconstruction to be learned, so
    an anomalous one is reconstructed badly (docs/methods/capsnet.md, note 4).

    Args:
        network: from an image to two capsules and back.
        margin_present: length from which the capsule of the image's class costs nothing (m+, 0.9).
        margin_absent: length up to which the other capsule costs nothing (m-, 0.1).
        absent_weight: of the other capsule's cost (lambda, 0.5).
        reconstruct: ``normal`` adds the reconstruction's error of normal images, ``all`` of all (plain
            CapsNet).
        reconstruction_weight: of the squared error, summed over all values of an image (0.0005).
        learning_rate: of Adam in the first period (1e-3).
        decay: by which the rate is multiplied after each period (0.9).
        decay_periods: equal parts of the training (50); with as many epochs, each is an epoch.
        score: ``length_difference`` is the anomalous capsule's length less the normal one's, -1 to 1, above 0
            where the classifier says anomalous; ``reconstruction`` is the squared error of what the normal
            capsule is decoded to, summed over the image.
    """

    supervised: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        network: CapsuleNetwork,
        margin_present: float,
        margin_absent: float,
        absent_weight: float,
        reconstruct: Literal["normal", "all"],
        reconstruction_weight: float,
        learning_rate: float,
        decay: float,
        decay_periods: int,
        score: Annotated[Literal["length_difference", "reconstruction"], EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        if not 0 <= margin_absent < margin_present <= 1:
            given = f"{margin_absent} and {margin_present}"
            raise ConfigError(
                f"model.margin_absent, model.margin_present: {given}; give 0 <= absent < present <= 1"
            )
        if not learning_rate > 0 or not 0 < decay <= 1:
            given = f"{learning_rate} and {decay}"
            raise ConfigError(
                f"model.learning_rate, model.decay: {given}; give a rate > 0 and 0 < decay <= 1"
            )
        if decay_periods < 1:
            raise ConfigError(f"model.decay_periods: {decay_periods}; give at least 1")
        for name, value in {"absent": absent_weight, "reconstruction": reconstruction_weight}.items():
            if not value >= 0:
                raise ConfigError(f"model.{name}_weight: {value}; give at least 0")
        self.network = network
        self.margin_present = margin_present
        self.margin_absent = margin_absent
        self.absent_weight = absent_weight
        self.reconstruct = reconstruct
        self.reconstruction_weight = reconstruction_weight
        self.learning_rate = learning_rate
        self.decay = decay
        self.decay_periods = decay_periods
        self.score = score

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared error of the normal capsule's picture, summed over colours, and the score."""
        seen = self.network.seen(image)
        capsules = self.network(seen)
        anomaly_map = (seen - self._as_normal(capsules)).square().sum(dim=1)
        if self.score == "reconstruction":
            return Prediction(anomaly_map, anomaly_map.sum((1, 2)))
        length = lengths(capsules)
        return Prediction(anomaly_map, length[:, 1] - length[:, 0])

    def _as_normal(self, capsules: Tensor) -> Tensor:
        normal = torch.zeros(len(capsules), dtype=torch.bool, device=capsules.device)
        return self.network.decoded(capsules, normal)

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margin loss and the summed squared error of each image, (B,) float32.

        The error is of the reconstruction from the capsule of the image's own class (note 3), and 0 where the
        image has none to learn.
        """
        seen = self.network.seen(image)
        capsules = self.network(seen)
        length = lengths(capsules)
        wanted = of_class(label)
        present = wanted * (self.margin_present - length).relu().square()
        absent = ~wanted * (length - self.margin_absent).relu().square()
        margin = (present + self.absent_weight * absent).sum(dim=1)
        error = (seen - self.network.decoded(capsules, label)).square().sum((1, 2, 3))
        if self.reconstruct == "normal":
            error = error * ~label
        return margin, error

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the mean over all images of both losses (docs/methods/capsnet.md, note 5)."""
        margin, error = self.losses(batch.clean, batch.label)
        terms = {"margin": margin.mean(), "reconstruction": self.reconstruction_weight * error.mean()}
        loss = torch.stack(list(terms.values())).sum()
        self.log_dict(
            {"loss": loss.detach(), **{f"loss/{name}": value.detach() for name, value in terms.items()}}
        )
        return loss

    def configure_optimizers(self) -> Any:
        """Adam, whose rate falls by a factor after each period (docs/methods/capsnet.md, note 6)."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, fused=True)
        schedule = LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate(self, step: int) -> float:
        """Return the factor on the learning rate at a step, from 0, of the training that was told of."""
        factor: float = self.decay ** (self.decay_periods * step // self.plan.steps)
        return factor

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the normal capsule is decoded to."""
        picture = self._as_normal(self.network(self.network.seen(image)))
        return {"reconstruction": picture.expand(-1, 3, -1, -1)}
