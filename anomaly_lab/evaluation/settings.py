"""How a trained method is measured."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.geometry import MaskResize
from anomaly_lab.errors import ConfigError

MOST_DRAWS = 100_000  # of the bootstrap; an interval gains nothing from more, and memory grows with them


@final
@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What a user sets of the evaluation; nothing here changes a training.

    Attributes:
        resolution: pixel metrics on the network's grid, or on the original masks with the maps resized to
            them.
        mask_resize: how masks come to the network's grid, by the nearest pixel or as DRAEM's evaluation has
            them (`anomaly_lab.data.geometry.resize_mask`); the latter makes defects smaller by a border.
        fpr_limit: AUPRO integrates to this false positive rate.
        target_fpr: the threshold lets about this share of normal images pass as anomalous.
        overlays: how many pictures of single images are drawn; 0 draws no pictures at all.
        bootstrap: resamples behind the 95 % intervals of image AUROC and AP.
        save_maps: keep every float32 anomaly map.
        poison: also score non-ideal copies of the test images.
    """

    resolution: Literal["network", "original"]
    mask_resize: MaskResize
    fpr_limit: float
    target_fpr: float
    overlays: int
    bootstrap: int
    save_maps: bool
    poison: bool

    def __post_init__(self) -> None:
        if self.resolution == "original" and self.mask_resize != "nearest":
            both = f"evaluation.resolution={self.resolution}, mask_resize={self.mask_resize}"
            raise ConfigError(f"{both}: give nearest, as no mask is resized there, or resolution=network")
        if not 0 < self.fpr_limit <= 1 or not 0 < self.target_fpr < 1:
            limits = f"evaluation.fpr_limit={self.fpr_limit}, target_fpr={self.target_fpr}"
            raise ConfigError(f"{limits}: give shares above 0 and at most 1")
        if not 0 <= self.bootstrap <= MOST_DRAWS or self.overlays < 0:
            counts = f"evaluation.bootstrap={self.bootstrap}, overlays={self.overlays}"
            raise ConfigError(
                f"{counts}: give no negative count and at most {MOST_DRAWS} draws; 0 leaves them out"
            )
