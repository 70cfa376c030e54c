"""PRFF-AD's progressive reconstruction, as a user sets it (section 4.1)."""

from dataclasses import dataclass
from typing import Annotated, Literal, final

from anomaly_lab.errors import ConfigError
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
