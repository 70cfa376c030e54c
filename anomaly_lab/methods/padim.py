"""PaDiM: a Gaussian for each position.

Defard, Setkov, Loesch, Audigier, ICPR 2020 workshops, arXiv 2011.08785.
"""

from typing import Annotated, ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.cached import CachedExtractor
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.gaussian import PositionGaussian
from anomaly_lab.layers.maps import Upsampling, enlarged
from anomaly_lab.methods.fitted import SinglePassMethod
from anomaly_lab.types import EVALUATION_ONLY, SAME_RUN, Prediction


@final
class Padim(SinglePassMethod):
    """Scores each position by its Mahalanobis distance to the training images' features there (section III).

    Args:
        backbone: maps; the coarser ones are enlarged to the first one's size, by the nearest value (section
            III-A).
        cache: where features are kept.
        channels: kept of all, drawn by ``seed``; the paper: 100 for ResNet18, 550 for Wide ResNet-50
            (section V-B).
        estimator: the Gaussians.
        upsampling: how distances are enlarged to the map; the paper: ``bicubic`` (section IV-B).
        sigma: of the Gaussian that smooths the map, in pixels of the image; the paper: 4 (section IV-B).
        seed: draws the channels.
    """

    joins: ClassVar[bool] = True
    channels_: Tensor  # (D,) int64

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        backbone: FeatureExtractor,
        cache: Annotated[Cache, SAME_RUN],
        channels: int,
        estimator: PositionGaussian,
        upsampling: Annotated[Upsampling, EVALUATION_ONLY],
        sigma: Annotated[float, EVALUATION_ONLY],
        seed: int,
    ) -> None:
        super().__init__()
        total = sum(backbone.channels)
        if not 1 <= channels <= total:
            raise ConfigError(f"model.channels: {channels}; the layers have {total}, give 1 to {total}")
        if sigma < 0:
            raise ConfigError(f"model.sigma: {sigma}; give at least 0")
        self.backbone = backbone.maps()
        self.features = CachedExtractor(backbone, cache)
        self.estimator = estimator
        self.upsampling: Upsampling = upsampling
        self.sigma = sigma
        drawn = torch.randperm(total, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
        self.register_buffer("channels_", drawn[:channels].sort().values)

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Return the enlarged, smoothed distances, and their maximum as the score."""
        maps = self.patches(image)
        distance = self.estimator.score(maps.flatten(1, 2)).view(maps.shape[:3])
        size = (image.shape[2], image.shape[3])
        anomaly_map = enlarged(distance, size, self.sigma, upsampling=self.upsampling)
        return Prediction(anomaly_map, anomaly_map.amax((1, 2)))

    def patches(self, image: Tensor) -> Tensor:
        """Return the drawn channels at each position of the first layer: (B, h, w, D) float32."""
        first, *others = self.features(image)
        levels = [first, *(interpolate(level, first.shape[2:], mode="nearest") for level in others)]
        return torch.cat(levels, dim=1)[:, self.channels_].permute(0, 2, 3, 1).contiguous()

    def update(self, image: Tensor) -> None:
        """Add the patches of normal images to the Gaussians' moments."""
        self.estimator.update(self.patches(image).flatten(1, 2))

    def finish(self) -> None:
        """Fit the Gaussians."""
        self.estimator.finish()
