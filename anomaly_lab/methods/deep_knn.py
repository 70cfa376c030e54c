"""Deep features and an estimator: CPCAE-kNN's baseline "Deep feature" (Saeedi, Giusti, VISAPP 2022, section 4.4)."""

from typing import ClassVar, final

import torch
from torch import Tensor

from anomaly_lab.backbones import FeatureExtractor
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.reduce import Standardizer
from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.types import Prediction


@final
class DeepKnn(FittedMethod):
    """Pools frozen features to a vector, standardises it, and scores it against those of the training images.

    The paper: Xception, global maximum, k = 15, Euclidean.

    Args:
        backbone: pools; the vectors of several layers are joined.
        estimator: scores the standardised (B, D) vectors.
    """

    localises: ClassVar[bool] = False

    def __init__(self, backbone: FeatureExtractor, estimator: Estimator) -> None:
        super().__init__()
        self.backbone, self.standardizer, self.estimator = backbone.vectors(), Standardizer(), estimator

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Score; the map repeats the score and means nothing."""
        score = self.estimator.score(self.embed(image))
        return Prediction(score[:, None, None].expand(-1, *image.shape[2:]), score)

    def embed(self, image: Tensor) -> Tensor:
        """Return the standardised vectors, (B, D) float32."""
        standardised: Tensor = self.standardizer(self.collect(image))
        return standardised

    def collect(self, image: Tensor) -> Tensor:
        """Return the vectors, (B, D) float32."""
        return torch.cat(self.backbone(image), dim=1)

    def fit(self, collected: Tensor) -> None:
        """Fit the standardisation, then the estimator on what it makes."""
        self.estimator.fit(self.standardizer.fit(collected)(collected))
