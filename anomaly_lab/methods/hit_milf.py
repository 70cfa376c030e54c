"""HIT-MiLF's detector: Farady, Kuo, Ng, Lin, Sensors 2023, 23(2), 988; its transformations are ``data.augment``.

Only the abstract, the contributions and the section titles could be read: a backbone whose levels are compared, a
Gaussian mixture on features of many dimensions. Layers, reduction and density are ours (methods 4.1).
"""

from typing import ClassVar, final

import torch
from torch import Tensor

from anomaly_lab.backbones import FeatureExtractor
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.reduce import Pca, Standardizer
from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.types import Prediction


@final
class HitMilf(FittedMethod):
    """Pools each level's features, joins the levels, standardises, reduces, and scores by a density.

    Args:
        backbone: pools; one layer is the paper's single level, several are joined.
        reduction: fitted on the training vectors, after their standardisation.
        estimator: scores the reduced (B, K) vectors; a Gaussian mixture's score is -log p.
    """

    localises: ClassVar[bool] = False

    def __init__(self, backbone: FeatureExtractor, reduction: Pca, estimator: Estimator) -> None:
        super().__init__()
        self.backbone, self.standardizer, self.reduction = backbone.vectors(), Standardizer(), reduction
        self.estimator = estimator

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Score; the map repeats the score and means nothing."""
        score = self.estimator.score(self.embed(image))
        return Prediction(score[:, None, None].expand(-1, *image.shape[2:]), score)

    def embed(self, image: Tensor) -> Tensor:
        """Return the reduced vectors, (B, K) float32."""
        reduced: Tensor = self.reduction(self.standardizer(self.collect(image)))
        return reduced

    def collect(self, image: Tensor) -> Tensor:
        """Return the joined vectors of all levels, (B, D) float32."""
        return torch.cat(self.backbone(image), dim=1)

    def fit(self, collected: Tensor) -> None:
        """Fit standardisation, reduction and density in turn, each on what the ones before make."""
        standardised = self.standardizer.fit(collected)(collected)
        self.estimator.fit(self.reduction.fit(standardised)(standardised))
