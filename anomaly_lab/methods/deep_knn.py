"""Deep features and an estimator: CPCAE-kNN's baseline "Deep feature".

Saeedi, Giusti, VISAPP 2022, section 4.4.
"""

from typing import Annotated, final

from torch import Tensor

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.reduce import Standardizer
from anomaly_lab.methods.fitted import VectorMethod
from anomaly_lab.types import SAME_RUN


@final
class DeepKnn(VectorMethod):
    """Pools frozen features to a vector, standardises it, and scores it against those of the training images.

    The paper: Xception, global maximum, k = 15, Euclidean.

    Args:
        backbone: pools; the vectors of several layers are joined.
        cache: where they are kept.
        estimator: scores the standardised (B, D) vectors.
    """

    def __init__(
        self, backbone: FeatureExtractor, cache: Annotated[Cache, SAME_RUN], estimator: Estimator
    ) -> None:
        super().__init__(backbone, cache, estimator)
        self.standardizer = Standardizer()

    def embed(self, image: Tensor) -> Tensor:
        """Return the standardised vectors, (B, D) float32."""
        standardised: Tensor = self.standardizer(self.collect(image))
        return standardised

    def fit(self, collected: Tensor) -> None:
        """Fit the standardisation, then the estimator on what it makes."""
        self.estimator.fit(self.standardizer.fit(collected)(collected))
