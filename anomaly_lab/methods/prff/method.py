"""PRFF-AD: Liu, Zhu, Feng, Zeng, Sensors 2023, 23(21), 8750.

"Anomaly Detection via Progressive Reconstruction and Hierarchical Feature Fusion". Sections, figures and
tables below are that paper's.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import draem_loss
from anomaly_lab.layers.schedules import check_schedule, stepped_adam
from anomaly_lab.layers.scorer import Scorer
from anomaly_lab.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork, fast_layout, initialise
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.prff.progressive import GateCount, Progressive
from anomaly_lab.methods.prff.swin_upernet import SwinUPerNet
from anomaly_lab.types import Prediction, TrainBatch

log = logging.getLogger(__name__)


@final
class Prff(AnomalyMethod):
    """DRAEM with fused features, a transformer to compare by, and progressive reconstruction.

    With ``fusion`` off, the U-Net and one iteration it is DRAEM, to the bit, if rates, batches and synthesis
    are too. The discriminator sees [reconstruction, image, features] in DRAEM's order; another order is
    another numbering only.

    Args:
        reconstructive_width: channels of the reconstruction at its first level (128; prff.md, note 14).
        fusion: whether the discriminator also sees features of the reconstruction network (section 4.2).
        feature_layers: which of its nine levels, from 1.
        feature_channels: channels that each of them is reduced to.
        discriminator: which of the two networks compares.
        unet, swin_upernet: make them, given the channels of their input.
        ssim_weight, ssim_range, focal_gamma: of the loss, as in DRAEM.
        learning_rate: of the reconstruction network and the fusion.
        discriminator_learning_rate, discriminator_weight_decay: of the other.
        warmup: share of all steps in which the rates rise linearly from 0.
        milestones: shares of all steps after which the rates are multiplied by ``gamma``.
        trained_iterations: passes in training, each with its loss; the later ones see the network's own
            output (ours).
    """

    pseudo = True
    stride = 32

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        reconstructive_width: int,
        fusion: bool,  # noqa: FBT001 - a row of the paper's ablation
        feature_layers: Sequence[int],
        feature_channels: int,
        discriminator: Literal["unet", "swin_upernet"],
        unet: Callable[[int], DiscriminativeNetwork],
        swin_upernet: Callable[[int], SwinUPerNet],
        ssim_weight: float,
        ssim_range: Literal["unit", "guessed"],
        focal_gamma: float,
        learning_rate: float,
        discriminator_learning_rate: float,
        discriminator_weight_decay: float,
        warmup: float,
        milestones: Sequence[float],
        gamma: float,
        trained_iterations: int,
        progressive: Progressive,
        scorer: Scorer,
    ) -> None:
        super().__init__()
        counts = {"reconstructive_width": reconstructive_width, "feature_channels": feature_channels}
        counts["trained_iterations"] = trained_iterations
        _check_numbers(counts, focal_gamma, discriminator_weight_decay)
        if fusion and (not feature_layers or not set(feature_layers) <= set(range(1, 10))):
            raise ConfigError(
                f"model.feature_layers: {list(feature_layers)}; the network has the levels 1 to 9"
            )
        rates = {"learning_rate": learning_rate, "discriminator_learning_rate": discriminator_learning_rate}
        check_schedule(rates, warmup, milestones, gamma)
        layers = list(feature_layers) if fusion else []
        self.reconstructive = ReconstructiveNetwork(reconstructive_width)
        make = unet if discriminator == "unet" else swin_upernet
        self.discriminative = make(6 + feature_channels * len(layers))
        widths = [self.reconstructive.widths[layer - 1] for layer in layers]
        self.fusion = nn.ModuleList([Reduction(width, feature_channels) for width in widths])
        for network in (self.reconstructive, self.discriminative, self.fusion):
            if not isinstance(network, SwinUPerNet):
                network.apply(initialise)
        self.layout = fast_layout(reconstructive_width)
        self.to(memory_format=self.layout)
        self.layers = layers
        self.loss = partial(
            draem_loss, ssim_weight=ssim_weight, ssim_range=ssim_range, focal_gamma=focal_gamma
        )
        self.learning_rate = learning_rate
        self.discriminator = {"lr": discriminator_learning_rate, "weight_decay": discriminator_weight_decay}
        self.warmup = warmup
        self.milestones = milestones
        self.gamma = gamma
        self.trained_iterations = trained_iterations
        self.progressive = progressive
        self.scorer = scorer
        self.counted = GateCount()

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts; a resumed one replaces them by its own."""
        if stage == "fit" and isinstance(self.discriminative, SwinUPerNet):
            self.discriminative.load_pretrained()

    def on_test_start(self) -> None:
        """Count anew how often the gate opens, for test images alone."""
        self.counted.begin()

    def on_test_epoch_end(self) -> None:
        """Say how often the gate opened."""
        self.counted.end()
        if (how := self.progressive).iterations > 1:
            log.info("progressive reconstruction: %s", self.counted.described(how))

    def doubts(self) -> list[str]:
        """Say so if no image got a further pass."""
        idle = self.progressive.iterations > 1 and not self.counted.passes
        return ["the gate never opened: any number of passes gives the same numbers"] * idle

    def forward(self, image: Tensor) -> Prediction:
        """Score by the anomalous probability after the last pass that an image gets (section 4.1)."""
        reconstruction, features = self._reconstruct(image)
        result = self.scorer(self._compare(reconstruction, image, features))
        how = self.progressive
        suspicious = (
            result.score > how.threshold if how.gate != "open" else torch.ones_like(result.score).bool()
        )
        for number in range(1, how.iterations):
            # Only suspicious images are computed again; an exported graph cannot choose, and computes all.
            exporting = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            rows = (
                torch.arange(image.shape[0], device=image.device) if exporting else suspicious.nonzero()[:, 0]
            )
            if not exporting:
                self.counted.take(len(image) if number == 1 else 0, len(rows))
            if not len(rows):
                break
            previous = reconstruction[rows]
            seen = image[rows] if how.compared == "original" else previous
            again, latest = self._reconstruct(previous)
            fused = latest if how.features == "last" else [feature[rows] for feature in features]
            probability = self._compare(again, seen, fused)
            if how.kept == "max":
                probability = torch.maximum(probability, result.anomaly_map[rows])
            new = self.scorer(probability)
            chosen = suspicious[rows]
            anomaly_map = torch.where(chosen[:, None, None], new.anomaly_map, result.anomaly_map[rows])
            score = torch.where(chosen, new.score, result.score[rows])
            reconstruction = reconstruction.index_copy(0, rows, again.to(reconstruction.dtype))
            result = Prediction(
                result.anomaly_map.index_copy(0, rows, anomaly_map), result.score.index_copy(0, rows, score)
            )
            if how.gate == "each":
                suspicious &= result.score > how.threshold
        return result

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Train both networks together; the focal loss reaches the reconstruction, too (prff.md, note 8)."""
        source = batch.image
        passes = []
        for _ in range(self.trained_iterations):
            reconstruction, features = self._reconstruct(source)
            probability = self._compare(reconstruction, batch.image, features)
            passes.append(self.loss(reconstruction, probability, batch))
            source = reconstruction.detach()
        losses = {name: torch.stack([one[name] for one in passes]).mean() for name in passes[0]}
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {"loss": total.detach(), **{f"loss/{name}": value.detach() for name, value in losses.items()}}
        )
        return total

    def _reconstruct(self, source: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the reconstruction, (B, 3, H, W), and features to fuse, (B, feature_channels, H, W) each."""
        reconstruction, levels = self.reconstructive(
            source.contiguous(memory_format=self.layout), self.layers
        )
        return reconstruction, [
            reduce(level, source) for level, reduce in zip(levels, self.fusion, strict=True)
        ]

    def _compare(self, reconstruction: Tensor, seen: Tensor, features: list[Tensor]) -> Tensor:
        """Return the probability of being anomalous, (B, H, W)."""
        seen = seen.contiguous(memory_format=self.layout)
        logits: Tensor = self.discriminative(torch.cat([reconstruction, seen, *features], dim=1))
        return logits.softmax(dim=1)[:, 1]

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Show each pass, as the paper's Figures 4, 5 and 8, whether an image's gate is open or not."""
        shown: dict[str, Tensor] = {}
        features: list[Tensor] = []
        source = image
        how = self.progressive
        for number in range(1, how.iterations + 1):
            seen = image if how.compared == "original" or number == 1 else source
            source, latest = self._reconstruct(source)
            features = latest if how.features == "last" or number == 1 else features
            shown |= {
                f"reconstruction {number}": source,
                f"map {number}": self._compare(source, seen, features),
            }
        return shown if how.iterations > 1 else {"reconstruction": source}

    def configure_optimizers(self) -> Any:
        """Adam for the reconstruction and the fusion, AdamW for the discriminator (prff.md, note 12)."""
        ours = [*self.reconstructive.parameters(), *self.fusion.parameters()]
        theirs = {"params": list(self.discriminative.parameters()), **self.discriminator}
        groups = [{"params": ours, "lr": self.learning_rate}, theirs]
        return stepped_adam(groups, self.plan.steps, self.warmup, self.milestones, self.gamma)


def _check_numbers(counts: dict[str, int], focal_gamma: float, weight_decay: float) -> None:
    """Raise ConfigError for a number that is out of its range."""
    if few := [f"model.{name}: {count}" for name, count in counts.items() if count < 1]:
        raise ConfigError(f"{few[0]}; give at least 1")
    if focal_gamma < 0 or 0 < focal_gamma < 1:  # as DRAEM does
        raise ConfigError(f"model.focal_gamma: {focal_gamma}; give 0 or at least 1")
    if weight_decay < 0:
        raise ConfigError(f"model.discriminator_weight_decay: {weight_decay} must not be below 0")


@final
class Reduction(nn.Module):
    """One level of the fusion: convolution, resize, norm, activation (section 4.2; prff.md, note 3)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, level: Tensor, like: Tensor) -> Tensor:
        """Return (B, after, H, W) features, H and W those of ``like``."""
        features: Tensor = self.norm(interpolate(self.conv(level), size=like.shape[2:], mode="bilinear"))
        return features.relu()
