"""VT-ADL: Mishra, Verk, Fornasier, Piciarelli, Foresti, ISIE 2021.

"VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization". Where the text and the
released code differ, a field has both.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.capsules import Capsules
from anomaly_lab.layers.losses import ssim
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.layers.vector_decoder import VectorDecoder
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.vt_adl.mixture_density import MixtureDensity
from anomaly_lab.methods.vt_adl.patch_transformer import PatchTransformer
from anomaly_lab.methods.vt_adl.projection import LinearProjection
from anomaly_lab.ranks import here
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch, Training


class Terms(NamedTuple):
    """What the loss and the score are made of, float32."""

    error: Tensor  # (B,) mean squared error of the reconstruction
    similarity: Tensor  # (B,) mean SSIM of the reconstruction, -1 to 1; higher is more alike
    nll: Tensor  # (B, T) negative log-likelihood of each token


@final
class VtAdl(AnomalyMethod):
    """Encodes patches by a transformer, reconstructs the image from all of them, and says how likely each is.

    Args:
        encoder: of patches; its tokens go both ways.
        latent_noise: standard deviation of the noise on the tokens, in training only (0.2); 0 is the paper's
            ablation.
        bottleneck: ``linear`` is the text's projection of all tokens to one vector, ``capsule`` the released
            routing to one, which equals ``squashed_linear`` (vt_adl.md, note 6).
        capsule_dim: entries of a token that make a capsule (8).
        routing_iterations: of the capsules (3).
        decoder, mixture: make them, given the dim of a token.
        mse_weight, ssim_weight, nll_weight: of the loss (5, 0.5, 1).
        learning_rate, weight_decay: of Adam, whose decay is added to the gradient (1e-4 and 1e-4).
        mixture_gradients: ``cleared`` after each step. The released code clears those of the other networks
            only, so each step of the mixture is made with the sum of its gradients since the first one:
            ``accumulated``.
        sigma: of the Gaussian that smooths the map, in pixels (4).
        image_score: ``loss`` is the training loss of the image, with its weights and all tokens (text);
            ``terms`` adds error, SSIM and the least likely token unweighted (released); ``map_max`` is the
            map's maximum.
        ssim_sign: in the score, ``corrected`` adds 1 - SSIM; ``released`` adds SSIM, so that a good
            reconstruction raises the score.
    """

    printed: ClassVar[dict[str, str]] = {"pro_as_printed": "pixel_auroc"}

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        encoder: PatchTransformer,
        latent_noise: float,
        bottleneck: Literal["linear", "capsule", "squashed_linear"],
        capsule_dim: int,
        routing_iterations: int,
        decoder: Callable[[int], VectorDecoder],
        mixture: Callable[[int], MixtureDensity],
        mse_weight: float,
        ssim_weight: float,
        nll_weight: float,
        learning_rate: float,
        weight_decay: float,
        mixture_gradients: Literal["cleared", "accumulated"],
        sigma: Annotated[float, EVALUATION_ONLY],
        image_score: Annotated[Literal["loss", "terms", "map_max"], EVALUATION_ONLY],
        ssim_sign: Annotated[Literal["corrected", "released"], EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        _check_capsules(capsule_dim, encoder.dim)
        if learning_rate <= 0 or routing_iterations < 1:
            given = f"model.learning_rate={learning_rate}, model.routing_iterations={routing_iterations}"
            raise ConfigError(f"{given}: give a rate above 0 and at least 1 iteration")
        others = {"latent_noise": latent_noise, "weight_decay": weight_decay, "sigma": sigma}
        weights = {"mse_weight": mse_weight, "ssim_weight": ssim_weight, "nll_weight": nll_weight}
        _check_not_negative(others | weights)
        self.encoder = encoder
        self.latent_noise = latent_noise
        self.stride = encoder.patch_size
        dim = encoder.dim
        self.bottleneck = _bottleneck(bottleneck, encoder.tokens * dim, dim, capsule_dim, routing_iterations)
        self.capsule_dim = capsule_dim
        self.decoder = decoder(dim)
        self.mixture = mixture(dim)
        self.mse_weight = mse_weight
        self.ssim_weight = ssim_weight
        self.nll_weight = nll_weight
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.sigma = sigma
        self.image_score = image_score
        self.ssim_sign = ssim_sign
        self.mixture_gradients = mixture_gradients
        # Sums of gradients: buffers in a training that accumulates them, no part of the weights.
        self.sums = nn.Module()

    def check_training(self, training: Training) -> None:
        """Raise ConfigError for sums of gradients whose scale changes."""
        if self.mixture_gradients == "accumulated" and training.precision == "16-mixed":
            way_out = "accumulated needs trainer.precision=32-true or bf16-mixed"
            raise ConfigError(f"model.mixture_gradients: {way_out}")

    def setup(self, stage: str) -> None:
        """Make room for sums, which a broken-off training saves."""
        if stage == "fit" and self.mixture_gradients == "accumulated":
            for name, parameter in self.mixture.named_parameters():
                self.sums.register_buffer(name, torch.zeros_like(parameter))

    def on_fit_end(self) -> None:
        """Leave the weights alone."""
        self.sums = nn.Module()

    def forward(self, image: Tensor) -> Prediction:
        """Score tokens by their likelihood, the image by loss, terms or map (vt_adl.md, note 5)."""
        error, similarity, nll = self.terms(image)
        size = (image.shape[2], image.shape[3])
        anomaly_map = enlarged(nll.view(-1, *self.encoder.grid), size, self.sigma, "corners")
        if self.image_score == "map_max":
            return Prediction(anomaly_map, anomaly_map.amax((1, 2)))
        structure = similarity if self.ssim_sign == "released" else 1 - similarity
        if self.image_score == "terms":
            return Prediction(anomaly_map, error + structure + nll.amax(dim=1))
        likelihood = self.nll_weight * nll.sum(dim=1)
        return Prediction(anomaly_map, self.mse_weight * error + self.ssim_weight * structure + likelihood)

    def terms(self, image: Tensor) -> Terms:
        """Return the terms of each of (B, 3, H, W) images; in training the tokens are noisy for both ways."""
        tokens = self.encoder(image)
        if self.training and self.latent_noise:
            tokens = tokens + self.latent_noise * here.randn_like(tokens)
        picture, image = self._reconstruct(tokens, image), image.float()
        error = (picture - image).square().mean((1, 2, 3))
        return Terms(error, ssim(image, picture, "unit").mean((1, 2, 3)), self.mixture(tokens))

    def _reconstruct(self, tokens: Tensor, image: Tensor) -> Tensor:
        if isinstance(self.bottleneck, Capsules):
            vector = self.bottleneck(tokens.reshape(len(tokens), -1, self.capsule_dim))[:, 0]
        else:
            vector = self.bottleneck(tokens.flatten(1))
        picture: Tensor = self.decoder(vector, (image.shape[2], image.shape[3]))
        return picture

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the weighted sum of error, -SSIM and the sum of likelihoods (vt_adl.md, note 12)."""
        error, similarity, nll = self.terms(batch.clean)
        losses = {
            "mse": self.mse_weight * error.mean(),
            "ssim": -self.ssim_weight * similarity.mean(),
            "nll": self.nll_weight * nll.sum(dim=1).mean(),
        }
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def on_before_optimizer_step(self, optimizer: Any) -> None:  # noqa: ARG002 - Lightning's signature
        """Put the sum of all gradients so far in the place of the latest, where the recipe accumulates."""
        for name, total in self.sums.named_buffers():
            parameter = self.mixture.get_parameter(name)
            if parameter.grad is not None:
                parameter.grad.copy_(total.add_(parameter.grad))

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self._reconstruct(self.encoder(image), image)}

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate for all networks together (docs/methods/vt_adl.md, note 12)."""
        return torch.optim.Adam(
            self.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )


def _bottleneck(
    kind: str, values: int, dim: int, capsule_dim: int, iterations: int
) -> Capsules | LinearProjection:
    # Drawn also where capsules take its place, so that they keep the first weights that a seed gave them.
    projection = LinearProjection(values, dim, squashed=kind == "squashed_linear")
    if kind == "capsule":
        return Capsules(values // capsule_dim, capsule_dim, 1, dim, iterations)
    return projection


def _check_capsules(capsule_dim: int, dim: int) -> None:
    """Raise ConfigError unless a token's entries make whole capsules."""
    if capsule_dim < 1 or dim % capsule_dim:
        shown = f"{capsule_dim} does not divide model.encoder.dim={dim}"
        raise ConfigError(f"model.capsule_dim: {shown}; change one of them")


def _check_not_negative(values: dict[str, float]) -> None:
    """Raise ConfigError for the first key with a value below 0."""
    for name, value in values.items():
        if value < 0:
            raise ConfigError(f"model.{name}: {value}; give at least 0")
