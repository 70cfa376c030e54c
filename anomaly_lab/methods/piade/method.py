"""PIADE: Mishra, Piciarelli, Foresti, International Journal of Neural Systems 30(10), 2020.

"A neural network for image anomaly detection with deep pyramidal representations and dynamic routing". Notes
are those of docs/methods/piade.md; "the code" is the authors'.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import torch
from torch import Tensor

from anomaly_lab.backbones.perceptual import PerceptualLoss
from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import linears, resized
from anomaly_lab.layers.capsules import Capsules
from anomaly_lab.layers.losses import ssim
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.layers.vector_decoder import VectorDecoder
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.piade.pyramid import SIDE, LongestVector, Pyramid
from anomaly_lab.methods.piade.squeezed import SqueezedBackbone
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch

TERMS = ("mse", "ssim", "perceptual")
LAID_OUT = 8  # side of the square in which the decoder gets its values


class PictureErrors(NamedTuple):
    """What the loss, the score and the map are made of, float32; None where the recipe leaves it out."""

    mse: Tensor | None  # (B, H, W) squared error, the mean over colours
    ssim: Tensor | None  # (B, H, W) negative structural similarity, the mean over colours
    perceptual: Tensor | None  # (B, h, w) squared difference of features, the mean over channels, weighted


@final
class Piade(AnomalyMethod):
    """Encodes an image at four scales, routes their capsules to a few vectors, and decodes the longest one.

    It learns from normal images alone and scores by what it cannot draw again.

    Args:
        backbone: trained on; its deepest layer X, (B, C, h, w), is what the pyramid sees.
        variant: of the pyramid, see `Pyramid`.
        squeezed: steps of the backbone after which a squeeze-and-excitation stands.
        squeeze_reduction: of it (16).
        normalise: whether the backbone's images are normalised as its weights want it; not so in the code.
        reductions: of the channels, at each of the four levels (1, 2, 4, 8).
        head_momentum: of the pyramid's batch norms (0.95).
        capsule_dim: values of a capsule (8).
        vectors: that the capsules are routed to (2; 1 is the paper's ablation).
        vector_dim: values of such a vector (64).
        routing_iterations: of the capsules (3).
        upsampling: widths of the linear layers from the vector to ``upsampled`` x 4 x 4 values (128, 512).
        upsampled: channels of these (512).
        skip: whether X goes to the decoder, too (note 4).
        decoder: makes it, given how many values it gets.
        perceptual: the loss of that name.
        terms: of the loss and of the score: ``mse``, ``ssim`` and ``perceptual``.
        perceptual_weight: of that term, beside the others' 1 (1).
        learning_rate, weight_decay: of Adam, whose decay is added to the gradient (1e-3 and 1e-3).
        sigma: of the Gaussian that smooths the map, in pixels (note 7).
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        backbone: TrainedBackbone,
        variant: Literal["released", "paper"],
        squeezed: Sequence[str],
        squeeze_reduction: int,
        normalise: bool,  # noqa: FBT001 - a key of its own
        reductions: Sequence[int],
        head_momentum: float,
        capsule_dim: int,
        vectors: int,
        vector_dim: int,
        routing_iterations: int,
        upsampling: Sequence[int],
        upsampled: int,
        skip: bool,  # noqa: FBT001 - an ablation
        decoder: Callable[[int], VectorDecoder],
        perceptual: PerceptualLoss,
        terms: Sequence[Literal["mse", "ssim", "perceptual"]],
        perceptual_weight: float,
        learning_rate: float,
        weight_decay: float,
        sigma: Annotated[float, EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        least = {"vectors": vectors, "vector_dim": vector_dim, "routing_iterations": routing_iterations}
        _check(least | {"upsampled": upsampled, "upsampling": min(upsampling, default=1)}, 1)
        others = {"weight_decay": weight_decay, "sigma": sigma, "head_momentum": head_momentum}
        _check(others | {"perceptual_weight": perceptual_weight}, 0)
        if learning_rate <= 0:
            raise ConfigError(f"model.learning_rate: {learning_rate}; give a rate above 0")
        if not terms or len(set(terms)) < len(terms):
            raise ConfigError(
                f"model.terms: {list(terms)}; give at least one of {', '.join(TERMS)}, each once"
            )
        self.encoder = SqueezedBackbone(backbone, squeezed, squeeze_reduction, normalise)
        self.pyramid = Pyramid(self.encoder.channels, variant, reductions, capsule_dim, head_momentum)
        routed = Capsules(self.pyramid.capsules, capsule_dim, vectors, vector_dim, routing_iterations)
        self.routing = LongestVector(routed)
        self.upsampling = linears([vector_dim, *upsampling, upsampled * SIDE**2])
        self.upsampled = upsampled
        self.skip = skip
        joined = upsampled + (self.encoder.channels if skip else 0)
        self.decoder = decoder(joined * SIDE**2)
        self.perceptual = perceptual if "perceptual" in terms else None
        self.terms = tuple(terms)
        self.perceptual_weight = perceptual_weight
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.sigma = sigma

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit":
            self.encoder.backbone.load_pretrained()
            if self.perceptual is not None:
                self.perceptual.load_pretrained()

    def reconstruct(self, image: Tensor) -> Tensor:
        """Return the picture of (B, 3, H, W) images, same shape, float32 in [-1, 1]."""
        x = resized(self.encoder(image), (SIDE, SIDE))
        vector = self.routing(self.pyramid(x))
        values = self.upsampling(vector[:, :, None, None]).view(len(x), self.upsampled, SIDE, SIDE)
        if self.skip:
            values = torch.cat([x.to(values.dtype), values], dim=1)
        picture: Tensor = self.decoder(values.flatten(1), (image.shape[2], image.shape[3]))
        return picture

    def errors(self, image: Tensor) -> PictureErrors:
        """Return how (B, 3, H, W) images differ from their pictures, term by term."""
        picture = self.reconstruct(image).float()
        image = image.float()
        found: dict[str, Tensor | None] = dict.fromkeys(TERMS)
        if "mse" in self.terms:
            found["mse"] = (picture - image).square().mean(dim=1)
        if "ssim" in self.terms:
            found["ssim"] = -ssim(image, picture, "unit").mean(dim=1)
        if self.perceptual is not None:
            found["perceptual"] = self.perceptual_weight * self.perceptual(picture, image)
        return PictureErrors(**found)

    def forward(self, image: Tensor) -> Prediction:
        """Return the sum of all terms at each pixel, smoothed, and the sum of their means as the score."""
        size = (image.shape[2], image.shape[3])
        found = [one for one in self.errors(image) if one is not None]
        each = torch.stack([enlarged(one, size, self.sigma) for one in found])
        return Prediction(each.sum(dim=0), torch.stack([one.mean((1, 2)) for one in found]).sum(dim=0))

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the sum of the terms over normal images."""
        found = self.errors(batch.clean)._asdict().items()
        losses = {name: value.mean() for name, value in found if value is not None}
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def latents(self, image: Tensor) -> dict[str, Tensor]:
        """Return the longest vector that the capsules are routed to."""
        return {"vector": self.routing(self.pyramid(resized(self.encoder(image), (SIDE, SIDE))))}

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self.reconstruct(image)}

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate for all that is not frozen."""
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        return torch.optim.Adam(learning, self.learning_rate, weight_decay=self.weight_decay, fused=True)


def _check(values: Mapping[str, float], least: int) -> None:
    """Raise ConfigError for the first key with a value below ``least``."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"model.{name}: {value}; give at least {least}")
