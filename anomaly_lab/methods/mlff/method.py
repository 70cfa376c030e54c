"""MLFF: Tang, Zuo, Wang, Zhang, Wang, J. National University of Defense Technology 2025, 47(2):173-182.

"Image anomaly detection algorithm using multi-level feature fusion network". No code was released and parts
of the text are lost: the wiring and all three losses are our readings (docs/methods/mlff.md lists the gaps).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import Float32Conv2d, conv, resized
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.layers.schedules import check_schedule, cosine_adam
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.mlff.losses import Losses, Outputs, covered
from anomaly_lab.methods.mlff.self_calibration import SelfCalibratedConv
from anomaly_lab.methods.mlff.statistical_texture import StatisticalTexture
from anomaly_lab.ranks import exchange, here
from anomaly_lab.types import EVALUATION_ONLY, Prediction, TrainBatch

log = logging.getLogger(__name__)


@final
class Mlff(AnomalyMethod):
    """Fuses a network's levels with their statistical texture and calibrated semantics.

    It learns from pseudo anomalies.

    Args:
        backbone: gives three layers, the first two for the texture, the third for the semantics.
        texture: makes the texture branch, given the channels of the first two layers; with both its modules
            off it is left out.
        calibration: whether the third layer goes through the self-calibrated convolution.
        calibration_rate: side of that one's pooling windows (4).
        fusion_channels: of the fused features (256).
        fusion_size: side that all are resized to before they are fused, and of the raw map (64).
        losses: what is minimised.
        learning_rate: of Adam, for all but the backbone (1e-4).
        backbone_learning_rate: of Adam, for the backbone (1e-5), unless that is frozen.
        warmup: share of all steps in which the rates rise linearly; then they fall along a cosine.
        sigma: of the Gaussian that smooths the map, in pixels of the image (4).
    """

    pseudo = True
    # (fusion_channels,) float32, the mean of normal features in the first epoch; (0,) until its end.
    center_: Tensor

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        backbone: TrainedBackbone,
        texture: Callable[[int], StatisticalTexture],
        calibration: bool,  # noqa: FBT001 - a row of the paper's ablation
        calibration_rate: int,
        fusion_channels: int,
        fusion_size: int,
        losses: Losses,
        learning_rate: float,
        backbone_learning_rate: float,
        warmup: float,
        sigma: Annotated[float, EVALUATION_ONLY],
    ) -> None:
        super().__init__()
        if backbone.order != [0, 1, 2]:  # of which timm's strides never fall
            raise ConfigError("model.backbone.layers: this method wants three, from shallow to deep")
        for key, value, least in (("fusion_channels", fusion_channels, 1), ("fusion_size", fusion_size, 2)):
            if value < least:
                raise ConfigError(f"model.{key}: {value}; give at least {least}")
        if sigma < 0:
            raise ConfigError(f"model.sigma: {sigma}; give at least 0")
        rates = {"learning_rate": learning_rate, "backbone_learning_rate": backbone_learning_rate}
        check_schedule(rates, warmup, (), 1.0)
        low, middle, high = backbone.channels
        made = texture(low + middle)
        self.backbone = backbone
        self.texture = made if made.width else None
        self.calibrate = SelfCalibratedConv(high, calibration_rate) if calibration else nn.Identity()
        joined = low + middle + made.width + high
        self.fuse = nn.Sequential(conv(joined, fusion_channels, 1), conv(fusion_channels, fusion_channels, 3))
        self.head = Float32Conv2d(fusion_channels, 1, 1)
        # Last of what is drawn, so that the other weights are the same in every form.
        single = backbone.channels if losses.by_level else ()
        self.level_heads = nn.ModuleList(Float32Conv2d(width, 1, 1) for width in single)
        self.fusion_size = (fusion_size, fusion_size)
        self.losses = losses
        self.sigma = sigma
        self.warmup = warmup
        self.learning_rate = learning_rate
        self.backbone_learning_rate = backbone_learning_rate
        self.register_buffer("center_", torch.empty(0))
        self.seen: Sequence[Tensor] = ()  # sum and count of normal features, until there is a center
        self.to(memory_format=torch.channels_last)

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def on_train_start(self) -> None:
        """Say so where there is nothing to learn, or where the feature loss waits in vain for its center."""
        if not self.plan.pseudo:
            log.warning(
                "no pseudo anomalies (synthesis=none, or a ratio of 0): the map has nothing to learn from"
            )
        if self.losses.centred and self.plan.epochs == 1:
            log.warning(
                "model.losses.feature: %g has no effect, as the training ends within the first epoch, whose "
                "end makes the center; train longer, or give model.losses.feature=0",
                self.losses.feature,
            )

    def forward(self, image: Tensor) -> Prediction:
        """Return the enlarged and smoothed score map, and its maximum (docs/methods/mlff.md, note 11)."""
        anomaly_map = enlarged(self._score(image)[0][:, 0], (image.shape[2], image.shape[3]), self.sigma)
        return Prediction(anomaly_map, anomaly_map.amax((1, 2)))

    def _score(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw map, (B, 1, h, w) float32 in [0, 1], and the fused features, (B, C, h, w)."""
        return self._fused(self._levels(image))

    def _levels(self, image: Tensor) -> list[Tensor]:
        """Return the first two layers and the calibrated third one, (B, C, h, w) each."""
        low, middle, high = self.backbone(image)
        return [low, middle, self.calibrate(high)]

    def _fused(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        texture = [] if self.texture is None else [self.texture(levels[:2])]
        parts = [resized(part, self.fusion_size) for part in (*levels, *texture)]
        fused = self.fuse(torch.cat(parts, dim=1))
        return self.head(fused).sigmoid(), fused

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Train on the images as they are, pseudo anomalies among them."""
        found = self._outputs(batch)
        if self.losses.centred and not len(self.center_) and here.counts():
            self._see(found.features.detach(), batch.mask)
        losses = self.losses.of(found, batch.mask, self.center_)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def _outputs(self, batch: TrainBatch) -> Outputs:
        """Return what the losses take of a batch."""
        size = (batch.mask.shape[1], batch.mask.shape[2])
        paired = self.losses.paired
        levels = self._levels(torch.cat([batch.image, batch.clean]) if paired else batch.image)
        coarse, fused = self._fused(levels)
        scores = interpolate(coarse, size, mode="bilinear")[:, 0]
        features = fused.float()
        if paired:
            (scores, clean_scores), (features, clean_features) = (
                each.chunk(2) for each in (scores, features)
            )
            return Outputs(scores, features, clean_scores=clean_scores, clean_features=clean_features)
        if not self.losses.by_level:
            return Outputs(scores, features)
        single = (head(level).sigmoid() for head, level in zip(self.level_heads, levels, strict=True))
        maps = [interpolate(one, size, mode="bilinear")[:, 0] for one in single]
        return Outputs(scores, features, levels=torch.stack(maps))

    def _see(self, features: Tensor, mask: Tensor) -> None:
        """Add up the normal features of a batch of the first epoch."""
        normal = 1 - covered(mask, features)
        more = ((features * normal).sum((0, 2, 3)), normal.sum())
        self.seen = [before + now for before, now in zip(self.seen, more, strict=True)] if self.seen else more

    def on_train_epoch_end(self) -> None:
        """Make the first epoch's normal features the center, before the state is saved; it stays for good."""
        if self.seen:
            total, count = map(exchange.summed, self.seen)
            self.center_ = total / count.clamp_min(1)
            self.seen = ()

    def configure_optimizers(self) -> Any:
        """Adam with a cosine, a smaller rate for the pretrained weights."""
        theirs = [weight for weight in self.backbone.parameters() if weight.requires_grad]
        ours = [weight for name, weight in self.named_parameters() if not name.startswith("backbone.")]
        groups = [{"params": ours, "lr": self.learning_rate}]
        if theirs:
            groups.append({"params": theirs, "lr": self.backbone_learning_rate})
        return cosine_adam(groups, self.plan.steps, self.warmup)
