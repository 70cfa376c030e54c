"""What methods share that learn in one pass over the training images, without gradients."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.cached import CachedExtractor
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange
from anomaly_lab.types import SAME_RUN, Prediction, TrainBatch, Training


class SinglePassMethod(AnomalyMethod, ABC):
    """Takes in each training image once, batch by batch, and learns at the end of the only epoch.

    What it needs of the images it may sum up as they come, so that memory does not grow with their number.

    Attributes:
        joins: whether `finish` learns from what all ranks took in; without it, several are refused.
    """

    joins: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    @abstractmethod
    def update(self, image: Tensor) -> None:
        """Take in a (B, 3, H, W) float32 batch of normal images in [0, 1]."""

    @abstractmethod
    def finish(self) -> None:
        """Learn from what was taken in, in float32 whatever the precision of the features."""

    def check_training(self, training: Training) -> None:
        """Raise ConfigError unless each training image comes exactly once, and all of them to `finish`."""
        if training.ranks > 1 and not self.joins:
            name = type(self).__name__
            way_out = "give trainer.devices=1, or see docs/extend.md on sums"
            raise ConfigError(f"trainer.devices: {name} knows of no other process's images; {way_out}")
        if training.epochs != 1 or not training.each_once:
            given = "this method sees each training image once"
            raise ConfigError(
                f"trainer.max_epochs, data.sampling: {given}; give trainer.max_epochs=1 data.sampling=shuffle"
            )

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Take the batch in."""
        with torch.no_grad():
            self.update(batch.clean)

    def on_train_epoch_end(self) -> None:
        """Learn."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            self.finish()

    def configure_optimizers(self) -> Any:
        """Nothing is learned by gradients."""
        return []


class FittedMethod(SinglePassMethod, ABC):
    """Collects something of every training image, then learns from all of it."""

    joins: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    @abstractmethod
    def collect(self, image: Tensor) -> Tensor:
        """Return what is kept of a (B, 3, H, W) float32 batch of normal images in [0, 1]: (B, ...)."""

    @abstractmethod
    def fit(self, collected: Tensor) -> None:
        """Learn from what was kept of all N training images: (N, ...)."""

    def update(self, image: Tensor) -> None:
        """Collect."""
        self.seen.append(self.collect(image))

    def finish(self) -> None:
        """Fit, on every rank, to what all of them have collected, in the order of the images."""
        collected, self.seen = torch.cat(exchange.in_turn(self.seen)), []
        self.fit(collected)


class VectorMethod(FittedMethod, ABC):
    """Scores whole images by a vector of each, made of a backbone's pooled features; it has no map.

    Args:
        backbone: pools; the vectors of several layers are joined.
        cache: where the vectors of the layers are kept.
        estimator: scores what `embed` returns.
    """

    localises: ClassVar[bool] = False

    def __init__(
        self, backbone: FeatureExtractor, cache: Annotated[Cache, SAME_RUN], estimator: Estimator
    ) -> None:
        super().__init__()
        self.backbone = backbone.vectors()
        self.features = CachedExtractor(backbone, cache)
        self.estimator = estimator

    @abstractmethod
    def embed(self, image: Tensor) -> Tensor:
        """Return the (B, K) float32 vectors that the estimator scores."""

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Score; the map repeats the score and means nothing."""
        score = self.estimator.score(self.embed(image))
        return Prediction(score[:, None, None].expand(-1, *image.shape[2:]), score)

    def collect(self, image: Tensor) -> Tensor:
        """Return the joined vectors of all layers, (B, D) float32."""
        return torch.cat(self.features(image), dim=1)
