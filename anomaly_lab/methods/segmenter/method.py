"""Supervised segmentation of defects, with the networks of De Nardin et al.'s figures 5 and 6.

Notes are those of docs/methods/segmenter.md.
"""

from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.scorer import Scorer
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.segmenter.network import SegmentationNetwork
from anomaly_lab.types import Prediction, TrainBatch

# Of ImageNet's photographs, as VGG's weights want it; the other networks get the same.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@final
class Segmenter(AnomalyMethod):
    """Learns the masks of labelled anomalies, and scores a pixel by its logit. It is supervised.

    Args:
        network: gives the logits.
        bce_weight: of the binary cross-entropy, the mean over an image's pixels.
        dice_weight: of 1 - Dice, of each image by itself.
        dice_smooth: is added to both sides of the fraction, in pixels; without it, an image without a defect
            has no Dice.
        learning_rate: of Adam.
        scorer: from the (B, H, W) map to the (B,) scores.

    Raises:
        ConfigError: a weight is below 0 or both are 0, or a value that has to be above 0 is not.
    """

    supervised: ClassVar[bool] = True
    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        network: SegmentationNetwork,
        bce_weight: float,
        dice_weight: float,
        dice_smooth: float,
        learning_rate: float,
        scorer: Scorer,
    ) -> None:
        super().__init__()
        if min(bce_weight, dice_weight) < 0 or bce_weight + dice_weight == 0:
            given = f"model.bce_weight={bce_weight}, model.dice_weight={dice_weight}"
            raise ConfigError(f"{given}: give none below 0, and one above it")
        for name, value in {"dice_smooth": dice_smooth, "learning_rate": learning_rate}.items():
            if value <= 0:
                raise ConfigError(f"model.{name}: {value}; give a number above 0")
        self.network = network
        self.stride = network.stride
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.dice_smooth = dice_smooth
        self.learning_rate = learning_rate
        self.scorer = scorer
        for key, values in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit":
            self.network.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Score by the logit of being anomalous, the mean of all heads (note 4)."""
        return self.scorer(self._logits(image).mean(dim=1))

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the mean loss of the images; an anomaly without ground truth counts as 0 (note 3)."""
        logits = self._logits(batch.image)
        target = batch.mask[:, None].expand_as(logits).to(logits.dtype)
        known = ~batch.label | batch.mask.flatten(1).any(dim=1)
        losses = {
            "bce": self.bce_weight * cross_entropy(logits, target),
            "dice": self.dice_weight * dice_loss(logits, target, self.dice_smooth),
        }
        # Over all images and not the known ones alone, so that ranks with unlike shares of them agree.
        means = {name: (loss * known[:, None]).mean() for name, loss in losses.items()}
        total = means["bce"] + means["dice"]
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in means.items()}}
        )
        return total

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network((image - self.mean) / self.std)
        return logits

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate (note 2)."""
        return torch.optim.Adam(self.parameters(), self.learning_rate)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy in nats, the mean over the pixels of (B, heads, H, W): (B, heads)."""
    return binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(2, 3))


def dice_loss(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Return 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), (B, heads) in [0, 1].

    p is the probability of the (B, heads, H, W) logits, t the (B, heads, H, W) target of 0 and 1 (Milletari
    et al., 3DV 2016, without the squares, as U-Net++'s authors have it).
    """
    probability = logits.sigmoid()
    both = (probability * target).sum(dim=(2, 3))
    either = probability.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
    loss: Tensor = 1 - (2 * both + smooth) / (either + smooth)
    return loss
