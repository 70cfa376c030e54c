"""PatchCore: nearest neighbours among a coreset of patches (Roth et al., CVPR 2022, arXiv 2106.08265)."""

import logging
from typing import Annotated, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, interpolate, unfold

from anomaly_lab.backbones.cache import Cache, digest
from anomaly_lab.backbones.cached import CachedExtractor
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.coreset import Start, greedy_coreset
from anomaly_lab.estimators.knn import nearest
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.types import EVALUATION_ONLY, SAME_RUN, Prediction

log = logging.getLogger(__name__)


@final
class PatchCore(FittedMethod):
    """Scores a patch by its distance to the nearest of the coreset, an image by its worst patch, re-weighted.

    Args:
        backbone: maps; each is averaged over 3 x 3 (section 3.1, p = 3), the coarser ones are enlarged,
            bilinear.
        cache: where features and chosen coresets are kept.
        layer_dimensions: what the values of a 3 x 3 neighbourhood are pooled to, of each layer; null: one
            average a channel. The authors' code: 1024 (docs/methods/patchcore.md, note 1).
        patch_dimensions: what the joined layers are pooled to; null: not at all. The authors' code: 1024.
        coreset: share of all training patches that is kept, chosen greedily (section 3.2, algorithm 1).
        coreset_start: the first patch is ``drawn``, or all begin at the mean distance to ten drawn ones, as
            in the authors' code.
        projection: dimensions of the random projection that the choice is made in; null makes none.
        neighbors: b of equation 7, which weighs the image's score; 1 leaves it as it is.
        distance: ``euclidean`` (equation 6), or its square, as the authors' code has it.
        sigma: of the Gaussian that smooths the map, in pixels of the image (section 3.3: 4).
        seed: of the projection and of the first patch.
    """

    bank_: Tensor  # (M, D) float32

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        backbone: FeatureExtractor,
        cache: Annotated[Cache, SAME_RUN],
        layer_dimensions: int | None,
        patch_dimensions: int | None,
        coreset: float,
        coreset_start: Start,
        projection: int | None,
        neighbors: Annotated[int, EVALUATION_ONLY],
        distance: Annotated[Literal["euclidean", "squared"], EVALUATION_ONLY],
        sigma: Annotated[float, EVALUATION_ONLY],
        seed: int,
    ) -> None:
        super().__init__()
        if not 0 < coreset <= 1:
            raise ConfigError(f"model.coreset: {coreset} is no share; give a number above 0, at most 1")
        for key, value, least in (
            ("neighbors", neighbors, 1),
            ("sigma", sigma, 0),
            ("projection", 1 if projection is None else projection, 1),
            ("layer_dimensions", 1 if layer_dimensions is None else layer_dimensions, 1),
            ("patch_dimensions", 1 if patch_dimensions is None else patch_dimensions, 1),
        ):
            if value < least:
                raise ConfigError(f"model.{key}: {value}; give at least {least}")
        self.backbone = backbone.maps()
        self.features = CachedExtractor(backbone, cache)
        self.cache = cache
        self.layer_dimensions = layer_dimensions
        self.patch_dimensions = patch_dimensions
        self.coreset = coreset
        self.coreset_start: Start = coreset_start
        self.projection = projection
        self.neighbors = neighbors
        self.squared = distance == "squared"
        self.sigma = sigma
        self.seed = seed
        self.capped = False
        self.register_buffer("bank_", torch.empty(0))

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Return the patches' distances, enlarged, smoothed, and the largest, re-weighted, as the score."""
        patches = self.collect(image)
        batch, height, width, channels = patches.shape
        flat = patches.view(batch, height * width, channels)
        distance, rows = (found.view(batch, -1) for found in nearest(flat.flatten(0, 1), self.bank_, 1))
        worst = distance.argmax(dim=1)
        chosen = torch.arange(batch, device=image.device)
        distance = distance.square() if self.squared else distance
        score = distance[chosen, worst] * self._weight(flat[chosen, worst], rows[chosen, worst])
        coarse = distance.view(batch, height, width)
        return Prediction(enlarged(coarse, (image.shape[2], image.shape[3]), self.sigma), score)

    def _weight(self, patch: Tensor, row: Tensor) -> Tensor:
        """Return 1 - softmax over the neighbours of the nearest patch, as equation 7 has it: (B,) float32.

        It is least, 1 - 1 / b, where all b neighbours are about equally far from the patch, as in a dense
        region of the bank. It nears 1 where the nearest one is lonely: the others are much farther away.
        """
        count = min(self.neighbors, len(self.bank_))
        if count < self.neighbors and not self.capped:
            self.capped = True  # said once
            log.warning("model.neighbors: %d, but the coreset has %d: all are taken", self.neighbors, count)
        if count == 1:
            return torch.ones_like(patch[:, 0])
        # (B, b, D), the nearest itself among them.
        around = self.bank_[nearest(self.bank_[row], self.bank_, count)[1]]
        distance = torch.linalg.vector_norm(patch[:, None] - around, dim=2)
        own = torch.linalg.vector_norm(patch - self.bank_[row], dim=1)
        return 1 - torch.exp(own - torch.logsumexp(distance, dim=1))

    def collect(self, image: Tensor) -> Tensor:
        """Return the patch features of all layers at each position of the first: (B, h, w, D) float32."""
        first, *others = [self._neighbourhoods(level) for level in self.features(image)]
        # Enlarging weighs positions and pooling weighs channels, so that either may come first.
        enlarging = (interpolate(level, first.shape[2:], mode="bilinear") for level in others)
        patches = torch.cat([first, *enlarging], dim=1).permute(0, 2, 3, 1)
        if self.patch_dimensions is not None:
            pooled = adaptive_avg_pool1d(patches.flatten(1, 2), self.patch_dimensions)
            patches = pooled.view(*patches.shape[:3], self.patch_dimensions)
        return patches.contiguous()

    def _neighbourhoods(self, level: Tensor) -> Tensor:
        """Return what is taken of each 3 x 3 neighbourhood of a (B, C, h, w) level: (B, D, h, w) float32.

        Beyond the edges there are zeros. Pooling runs over the channels, and over the nine positions of each.
        """
        if self.layer_dimensions is None:
            return avg_pool2d(level, 3, stride=1, padding=1)
        values = adaptive_avg_pool1d(unfold(level, 3, padding=1).mT, self.layer_dimensions)
        return values.mT.reshape(len(level), self.layer_dimensions, *level.shape[2:])

    def fit(self, collected: Tensor) -> None:
        """Choose the coreset, once for the same patches."""
        patches = collected.flatten(0, 2)
        count = max(1, round(self.coreset * len(patches)))
        log.info("coreset: %d of %d patches", count, len(patches))
        rows = exchange.told(self._chosen(patches, count) if here.first() else torch.empty(0))
        self.bank_ = patches[rows.to(patches.device)]

    def _chosen(self, patches: Tensor, count: int) -> Tensor:
        """Return the (count,) rows of the coreset, on the CPU."""
        how = (count, self.projection, self.seed)
        started = () if self.coreset_start == "drawn" else (self.coreset_start,)
        key = digest("coreset", patches, *how, *started)
        return self.cache.tensor(
            key, lambda: greedy_coreset(patches, *how, self.coreset_start), np.int64, (count,)
        )
