"""MLFF's three losses; their formulae are lost, so they are our readings, of which there are three.

docs/methods/mlff.md, note 8, has them side by side.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, cosine_similarity

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import focal_loss

NEAR = 0.01  # keeps the inverse distance of an anomalous position finite


class Outputs(NamedTuple):
    """What the network says of a batch of B images, float32.

    Attributes:
        scores: (B, H, W) in [0, 1], at the images' size.
        features: (B, C, h, w), fused.
        levels: (L, B, H, W) in [0, 1], a map of each single level; none but in the form ``levels``.
        clean_scores, clean_features: of the same images before synthesis, shaped as ``scores`` and
            ``features``; none but in the form ``pairs``.
    """

    scores: Tensor
    features: Tensor
    levels: Tensor | None = None
    clean_scores: Tensor | None = None
    clean_features: Tensor | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the training minimises: a weighted sum, in which 0 leaves a loss out.

    Attributes:
        form: what consistency and feature mean; the score loss is the same in all. ``overlap``: the map is
            consistent with the mask, features lie about a center (FCDD). ``levels``: maps of single levels
            are consistent with the fused one, features lie about a center (Deep SAD). ``pairs``: maps and
            features are those of the image before synthesis, where that changed nothing.
        score, consistency, feature: weights of the three losses.
        focal_gamma: focusing exponent of the score loss at each pixel, 0 (the cross-entropy) or at least 1.
    """

    form: Literal["overlap", "levels", "pairs"]
    score: float
    consistency: float
    feature: float
    focal_gamma: float

    @property
    def by_level(self) -> bool:
        """Whether it takes the map of each single level."""
        return self.form == "levels" and self.consistency > 0

    @property
    def paired(self) -> bool:
        """Whether it takes what the network says of the images before synthesis."""
        return self.form == "pairs" and max(self.consistency, self.feature) > 0

    @property
    def centred(self) -> bool:
        """Whether it takes the center of normal features."""
        return self.form != "pairs" and self.feature > 0

    def __post_init__(self) -> None:
        weights = {"score": self.score, "consistency": self.consistency, "feature": self.feature}
        for key, value in {**weights, "focal_gamma": self.focal_gamma}.items():
            if value < 0:
                raise ConfigError(f"model.losses.{key}: {value} must not be below 0; 0 switches it off")
        if 0 < self.focal_gamma < 1:  # the gradient of (1 - p)^gamma is infinite at p = 1
            raise ConfigError(f"model.losses.focal_gamma: {self.focal_gamma}; give 0 or at least 1")
        if not self.score and not self.consistency:
            raise ConfigError(
                "model.losses: score and consistency are 0; nothing would train the map, so give one more"
            )
        if not self.score and self.form != "overlap":
            raise ConfigError(
                f"model.losses.score: 0, but only the score loss tells a map of the form {self.form} where "
                "defects are; give more, or model.losses.form=overlap"
            )

    def of(self, found: Outputs, mask: Tensor, center: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses that are on, scalars.

        Args:
            found: with all that the form takes.
            mask: (B, H, W) bool.
            center: (C,), or (0,) before there is one: then there is no feature loss about it.
        """
        losses = {}
        if self.score:
            losses["score"] = self.score * score_loss(found.scores, mask, self.focal_gamma)
        if self.consistency:
            losses["consistency"] = self.consistency * self._consistency(found, mask)
        if self.feature and (len(center) or not self.centred):
            losses["feature"] = self.feature * self._feature(found, mask, center)
        return losses

    def _consistency(self, found: Outputs, mask: Tensor) -> Tensor:
        if found.levels is not None:
            return level_loss(found.scores, found.levels)
        if found.clean_scores is not None:
            return kept_score_loss(found.scores, found.clean_scores, mask)
        return consistency_loss(found.scores, mask)

    def _feature(self, found: Outputs, mask: Tensor, center: Tensor) -> Tensor:
        if found.clean_features is not None:
            return kept_feature_loss(found.features, found.clean_features, mask)
        if self.form == "levels":
            return inverse_feature_loss(found.features, mask, center)
        return feature_loss(found.features, mask, center)


def score_loss(scores: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return the focal loss of each pixel, averaged, plus the cross-entropy of greatest score and label.

    Args:
        scores: (B, H, W) float32 in [0, 1].
        mask: (B, H, W) bool; an image is labelled anomalous if any pixel is.
        gamma: focusing exponent at the pixels.
    """
    greatest = scores.amax((1, 2), keepdim=True)
    label = mask.any(2, keepdim=True).any(1, keepdim=True)
    return focal_loss(scores, mask, gamma) + focal_loss(greatest, label, 0.0)


def consistency_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the Dice loss of anomalous images and the mean score of normal ones, averaged over all images.

    Dice: ``1 - (2 sum(S M) + 1) / (sum(S) + sum(M) + 1)``; ``scores`` (B, H, W) in [0, 1], ``mask`` (B, H, W)
    bool.
    """
    scores, target = scores.float().flatten(1), mask.flatten(1).float()
    dice = 1 - (2 * (scores * target).sum(1) + 1) / (scores.sum(1) + target.sum(1) + 1)
    return torch.where(mask.flatten(1).any(1), dice, scores.mean(1)).mean()


def feature_loss(features: Tensor, mask: Tensor, center: Tensor) -> Tensor:
    """Return the hypersphere loss with the pseudo-Huber distance, as FCDD has it.

    At the distance ``a = sqrt(|F - c|^2 + 1) - 1`` a normal position costs a, an anomalous one
    ``-log(1 - exp(-a))``; the mean over all. The mask is brought to the features' size, not the features to
    the mask's, which take a gigabyte there at batch 16.

    Args:
        features: (B, C, h, w).
        mask: (B, H, W) bool.
        center: (C,).
    """
    squared = (features.float() - center[:, None, None]).square().sum(1, keepdim=True)
    distance = squared / ((squared + 1).sqrt() + 1)  # the same without cancellation
    repelled = -torch.log(-torch.expm1(-distance.clamp_min(1e-6)))  # finite at the center itself
    return torch.where(covered(mask, features) > 0, repelled, distance).mean()


def level_loss(scores: Tensor, levels: Tensor) -> Tensor:
    """Return how far the maps of single levels are from the fused one, the mean absolute difference.

    ``scores`` (B, H, W) and ``levels`` (L, B, H, W) are in [0, 1].
    """
    return (levels.float() - scores.float()).abs().mean()


def inverse_feature_loss(features: Tensor, mask: Tensor, center: Tensor) -> Tensor:
    """Return the loss of Deep SAD (Ruff et al., ICLR 2020) at each position, averaged.

    At the squared distance d, the mean over the channels, a normal position costs d and an anomalous one
    1 / (d + 0.01). Shapes as of `feature_loss`.
    """
    squared = (features.float() - center[:, None, None]).square().mean(1, keepdim=True)
    return torch.where(covered(mask, features) > 0, 1 / (squared + NEAR), squared).mean()


def kept_score_loss(scores: Tensor, clean_scores: Tensor, mask: Tensor) -> Tensor:
    """Return by how much scores beside a defect differ from those before it was made: (B, H, W) each.

    It is the absolute difference, 0 inside the (B, H, W) bool mask; the mean over all pixels.
    """
    return (scores.float() - clean_scores.float()).abs().masked_fill(mask, 0).mean()


def kept_feature_loss(features: Tensor, clean_features: Tensor, mask: Tensor) -> Tensor:
    """Return how unlike features are to those before the defect was made, and how alike inside it.

    With the cosine c of both (B, C, h, w), a position that no pixel of the (B, H, W) bool mask lies in costs
    1 - c, another one c where it is positive; the mean over all.
    """
    alike = cosine_similarity(features.float(), clean_features.float(), dim=1)
    return torch.where(covered(mask, features)[:, 0] > 0, alike.clamp_min(0), 1 - alike).mean()


def covered(mask: Tensor, features: Tensor) -> Tensor:
    """Return the (B, H, W) mask at the features' size, (B, 1, h, w) float32.

    It is 1 where any pixel of the mask lies, else 0.
    """
    return adaptive_max_pool2d(mask[:, None].float(), features.shape[2:])
