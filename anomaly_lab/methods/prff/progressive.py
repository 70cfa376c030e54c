"""PRFF-AD's progressive reconstruction, as a user sets it (section 4.1)."""

from dataclasses import dataclass
from typing import Annotated, Literal, final

from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import exchange
from anomaly_lab.types import EVALUATION_ONLY


@final
@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Reconstruction of the reconstruction, at evaluation only (section 4.1, Figures 3 to 5).

    Attributes:
        iterations: n, how often an image is reconstructed at most; 1 is DRAEM's way.
        threshold: m; an image whose score is above goes on to a further pass.
        gate: the score meets m ``once``, after the first pass, or before ``each`` pass; ``open`` sends all
            on.
        compared: what the discriminator sees beside the latest reconstruction: the ``original`` or the
            ``previous``.
        features: whether the fused features are those of the ``last`` pass or of the ``first``.
        kept: the map of the ``last`` pass, or the greatest value of all passes (``max``, not the paper's).
    """

    iterations: Annotated[int, EVALUATION_ONLY]
    threshold: Annotated[float, EVALUATION_ONLY]
    gate: Annotated[Literal["once", "each", "open"], EVALUATION_ONLY]
    compared: Annotated[Literal["original", "previous"], EVALUATION_ONLY]
    features: Annotated[Literal["last", "first"], EVALUATION_ONLY]
    kept: Annotated[Literal["last", "max"], EVALUATION_ONLY]

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError(f"model.progressive.iterations: {self.iterations}; give at least 1")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"model.progressive.threshold: {self.threshold}; scores are probabilities, 0 to 1"
            )


@final
class GateCount:
    """How many test images got further passes; what is scored outside a test is not counted.

    Such are the normals kept for the threshold, before it, and what is drawn or poisoned, after it.
    """

    def __init__(self) -> None:
        self.images = self.opened = self.passes = 0
        self.counting = False

    def begin(self) -> None:
        """Count from nothing."""
        self.images = self.opened = self.passes = 0
        self.counting = True

    def take(self, images: int, passed: int) -> None:
        """Take in a pass that ``passed`` images got; ``images`` is how many were asked, 0 after the first."""
        if self.counting:
            self.images += images
            self.opened += passed if images else 0
            self.passes += passed

    def end(self) -> None:
        """Count no more, and add up what all ranks have counted."""
        self.counting = False
        all_ranks = exchange.gathered((self.images, self.opened, self.passes))
        self.images, self.opened, self.passes = (sum(column) for column in zip(*all_ranks, strict=True))

    def described(self, how: Progressive) -> str:
        """Return the share of images that got further passes, and by which gate, in words."""
        share = f"{self.opened} of {self.images} test images ({self.opened / max(self.images, 1):.0%})"
        return f"{share} got {self.passes} further passes, gate {how.gate}, m {how.threshold:g}"
