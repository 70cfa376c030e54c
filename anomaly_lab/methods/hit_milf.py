"""HIT-MiLF's detector: Farady, Kuo, Ng, Lin, Sensors 2023, 23(2), 988.

Its transformations are ``data.augment``.

Only the abstract, the contributions and the section titles could be read: a backbone whose levels are
compared, a Gaussian mixture on features of many dimensions. Layers, reduction and density are ours
(docs/methods/hit_milf.md, notes 2 to 4).
"""

from typing import Annotated, final

from torch import Tensor

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.reduce import Pca, Standardizer
from anomaly_lab.methods.fitted import VectorMethod
from anomaly_lab.types import SAME_RUN


@final
class HitMilf(VectorMethod):
    """Pools each level's features, joins the levels, standardises, reduces, and scores by a density.

    Args:
        backbone: pools; one layer is the paper's single level, several are joined.
        cache: where the vectors of the levels are kept.
        reduction: fitted on the training vectors, after their standardisation.
        estimator: scores the reduced (B, K) vectors; a Gaussian mixture's score is -log p.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        cache: Annotated[Cache, SAME_RUN],
        reduction: Pca,
        estimator: Estimator,
    ) -> None:
        super().__init__(backbone, cache, estimator)
        self.standardizer = Standardizer()
        self.reduction = reduction

    def embed(self, image: Tensor) -> Tensor:
        """Return the reduced vectors, (B, K) float32."""
        reduced: Tensor = self.reduction(self.standardizer(self.collect(image)))
        return reduced

    def fit(self, collected: Tensor) -> None:
        """Fit standardisation, reduction and density in turn, each on what the ones before make."""
        standardised = self.standardizer.fit(collected)(collected)
        self.estimator.fit(self.reduction.fit(standardised)(standardised))
