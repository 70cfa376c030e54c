"""CPCAE-kNN's baseline "AE-L2": its autoencoder, scored by the error.

Saeedi, Giusti, VISAPP 2022, section 4.4.
"""

from typing import Any, final

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch


@final
class AutoencoderL2(AnomalyMethod):
    """Scores an image by the squared error of its reconstruction, summed over all pixels and colours."""

    def __init__(self, autoencoder: PatchAutoencoder, learning_rate: float) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise ConfigError(f"model.learning_rate: {learning_rate}; give a rate above 0")
        self.autoencoder = autoencoder
        self.learning_rate = learning_rate

    def forward(self, image: Tensor) -> Prediction:
        """Return the squared error, summed over colours, and its sum as the score.

        Where the autoencoder sees images smaller than they are, the error is that of its enlarged result.
        """
        anomaly_map = self.autoencoder.reconstruct(image).sub_(image).square_().sum(dim=1)
        return Prediction(anomaly_map, anomaly_map.sum((1, 2)))

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of patches drawn from normal images."""
        return self.autoencoder.loss(batch.clean)

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate; the paper names no optimiser (docs/methods/cpcae_knn.md, note 3)."""
        return torch.optim.Adam(self.parameters(), self.learning_rate)

    def latents(self, image: Tensor) -> dict[str, Tensor]:
        """Return the autoencoder's latent vectors, joined over the patches."""
        return {"latent": self.autoencoder.latent(image)}

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self.autoencoder.reconstruct(image)}
