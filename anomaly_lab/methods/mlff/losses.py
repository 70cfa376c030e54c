"""MLFF's three losses; half of their text is lost, so they are our reading (the recipe lists the gaps)."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import focal_loss


@final
@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the training minimises: a weighted sum, in which 0 leaves a loss out.

    Attributes:
        score, consistency, feature: weights of the three losses below.
        focal_gamma: focusing exponent of the score loss at each pixel, 0 (the cross-entropy) or at least 1.
    """

    score: float
    consistency: float
    feature: float
    focal_gamma: float

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

    def of(self, scores: Tensor, features: Tensor, mask: Tensor, center: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses that are on, scalars.

        With a ``center`` of shape (0,) there is no feature loss.
        """
        found = {}
        if self.score:
            found["score"] = self.score * score_loss(scores, mask, self.focal_gamma)
        if self.consistency:
            found["consistency"] = self.consistency * consistency_loss(scores, mask)
        if self.feature and len(center):
            found["feature"] = self.feature * feature_loss(features, mask, center)
        return found


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


def covered(mask: Tensor, features: Tensor) -> Tensor:
    """Return the (B, H, W) mask at the features' size, (B, 1, h, w) float32.

    It is 1 where any pixel of the mask lies, else 0.
    """
    return adaptive_max_pool2d(mask[:, None].float(), features.shape[2:])
