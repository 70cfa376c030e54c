"""The pyramidal autoencoder: Mishra, Piciarelli, Foresti, arXiv 2011.06288, 2020.

"Image anomaly detection by aggregating deep pyramidal representations". No code was released, so the
wiring is inferred from what is left of it in PIADE's. Notes are those of docs/methods/pyramidal_ae.md.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple, final

import torch
from torch import Tensor, nn

from anomaly_lab.backbones.perceptual import PerceptualLoss
from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.layers.vector_decoder import VectorDecoder
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.pyramidal_ae.levels import LATENT, PyramidLevel
from anomaly_lab.ranks import here
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch

log = logging.getLogger(__name__)


class PyramidErrors(NamedTuple):
    """What the loss, the score and the map are made of, float32."""

    mse: Tensor  # (B, H, W) squared error of the picture, the mean over colours
    perceptual: Tensor  # (B, h, w) squared difference of its features, the mean over channels
    feature: Tensor  # (B,) squared error of the decoded features, the mean over all levels

    def means(self) -> Tensor:
        """Return (B, 3) values, one a term."""
        return torch.stack([self.mse.mean((1, 2)), self.perceptual.mean((1, 2)), self.feature], dim=1)


@final
class PyramidalAutoencoder(AnomalyMethod):
    """Decodes the pooled features of a network from four small latent vectors, and the image from all four.

    It learns from normal images alone. The score adds three errors, each scaled by its range over normal
    images that the training did not see.

    Args:
        backbone: trained on; the C features of its deepest layer are pooled over the image.
        reductions: of the channels, one a level (1, 2, 4, 8).
        latent_noise: standard deviation of the noise on the latent vectors, in training only (0.2).
        decoder: makes it, given how many values it gets: C a level.
        perceptual: the loss of that name.
        mse_weight, perceptual_weight, feature_weight: of the loss (1, 1, 1; note 3).
        learning_rate, weight_decay: of Adam, whose decay is added to the gradient (1e-3 and 1e-3).
        sigma: of the Gaussian that smooths the map, in pixels (note 6).
    """

    ranges_: Tensor  # (3, 2) float32, least value and range of each term over normal images

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        backbone: TrainedBackbone,
        reductions: Sequence[int],
        latent_noise: float,
        decoder: Callable[[int], VectorDecoder],
        perceptual: PerceptualLoss,
        mse_weight: float,
        perceptual_weight: float,
        feature_weight: float,
        learning_rate: float,
        weight_decay: float,
        sigma: Annotated[float, EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        weights = {"mse": mse_weight, "perceptual": perceptual_weight, "feature": feature_weight}
        others = {"latent_noise": latent_noise, "weight_decay": weight_decay, "sigma": sigma}
        for name, value in ({f"{key}_weight": one for key, one in weights.items()} | others).items():
            if value < 0:
                raise ConfigError(f"model.{name}: {value}; give at least 0")
        if learning_rate <= 0 or not reductions:
            given = f"model.learning_rate={learning_rate}, model.reductions={list(reductions)}"
            raise ConfigError(f"{given}: give a rate above 0 and at least one level")
        self.backbone = backbone
        channels = backbone.channels[-1]
        self.levels: Any = nn.ModuleList(PyramidLevel(channels, reduction) for reduction in reductions)
        self.decoder = decoder(channels * len(reductions))
        self.perceptual = perceptual
        self.latent_noise = latent_noise
        self.weights = weights
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.sigma = sigma
        self.register_buffer("ranges_", torch.tensor([[0.0, 1.0]]).repeat(3, 1))

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit":
            self.backbone.load_pretrained()
            self.perceptual.load_pretrained()

    def _decoded(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture, (B, 3, H, W), the decoded features, (B, L, C), and the pooled ones, (B, C)."""
        pooled = self.backbone(image)[-1].float().mean((2, 3))
        latent = torch.cat([level.encode(pooled) for level in self.levels], dim=1)
        if self.training and self.latent_noise:
            latent = latent + self.latent_noise * here.randn_like(latent)
        pairs = zip(self.levels, latent.view(len(latent), -1, LATENT).unbind(dim=1), strict=True)
        decoded = torch.stack([level.decode(few) for level, few in pairs], dim=1)
        picture = self.decoder(decoded.flatten(1), (image.shape[2], image.shape[3]))
        return picture.float(), decoded.float(), pooled

    def errors(self, image: Tensor) -> PyramidErrors:
        """Return how (B, 3, H, W) images differ from their pictures, and their features from the decoded."""
        picture, decoded, pooled = self._decoded(image)
        image = image.float()
        # Detached: the features would else shrink until anything decodes them (note 3).
        feature = (decoded - pooled.detach()[:, None]).square().mean((1, 2))
        return PyramidErrors((picture - image).square().mean(dim=1), self.perceptual(picture, image), feature)

    def forward(self, image: Tensor) -> Prediction:
        """Return the two errors that have a place, scaled, summed and smoothed; all three as the score."""
        found = self.errors(image)
        size = (image.shape[2], image.shape[3])
        low, span = self.ranges_.unbind(dim=1)
        maps = [enlarged(one, size, self.sigma) for one in (found.mse, found.perceptual)]
        anomaly_map = maps[0] / span[0] + maps[1] / span[1]
        return Prediction(anomaly_map, ((found.means() - low) / span).sum(dim=1))

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the weighted sum of the three errors over normal images."""
        means = self.errors(batch.clean).means().mean(dim=0)
        losses = {
            name: weight * mean for (name, weight), mean in zip(self.weights.items(), means, strict=True)
        }
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def on_train_end(self) -> None:
        """Take the range of each term over the normal images that were kept from training (note 5)."""
        kept = self._terms(self.plan.kept)
        if len(kept) < 2:
            log.warning(
                "data.holdout keeps %d normal images, of which no range can be taken: the terms of the score "
                "are scaled by their ranges over training images; keep more",
                len(kept),
            )
            kept = self._terms(self.plan.normals)
        low = kept.amin(dim=0)
        span = kept.amax(dim=0) - low
        span = torch.where(span > 0, span, torch.ones_like(span))
        self.ranges_ = torch.stack([low, span], dim=1)

    @torch.no_grad()
    def _terms(self, images: Iterable[Tensor]) -> Tensor:
        """Return the (N, 3) terms of normal images, as a test computes them."""
        was_training = self.training
        self.eval()
        found = [self.errors(few.to(self.device)).means() for few in images]
        self.train(was_training)
        return torch.cat(found) if found else self.ranges_.new_empty(0, 3)

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self._decoded(image)[0]}

    def latents(self, image: Tensor) -> dict[str, Tensor]:
        """Return the latent vectors, joined over the levels, (B, 8 a level)."""
        pooled = self.backbone(image)[-1].float().mean((2, 3))
        return {"latent": torch.cat([level.encode(pooled) for level in self.levels], dim=1)}

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate for all that is not frozen."""
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        return torch.optim.Adam(learning, self.learning_rate, weight_decay=self.weight_decay, fused=True)
