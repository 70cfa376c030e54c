"""Several kinds of pseudo anomalies in one training."""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer

TRIES = 20


@final
class Mix(Synthesizer):
    """For each image one member is drawn by the weights; the yaml explains each argument.

    With a ratio, a member that changes nothing tries again, up to `TRIES` times in all, after which the image
    stays normal (a plain one may offer nothing to change). Another member is not asked: the weights hold.
    """

    def __init__(
        self, *, members: Mapping[str, Synthesizer], weights: Mapping[str, float], ratio: float | None
    ) -> None:
        if odd := sorted(weights.keys() ^ members.keys()):
            raise ConfigError(
                f"synthesis.weights: {odd[0]} is not in both weights and members; give each member one"
            )
        total = sum(weights.values())
        if not total > 0 or min(weights.values()) < 0:
            raise ConfigError(f"synthesis.weights: {dict(weights)}; give none below 0 and one above")
        if ratio is not None and not 0 <= ratio <= 100:
            raise ConfigError(f"synthesis.ratio: {ratio}; give a number from 0 to 100, or null")
        self.members = {name: members[name] for name in sorted(members) if weights[name] > 0}
        self.shares = {name: weights[name] / total for name in self.members}
        self.ratio = ratio
        sources = "; ".join(f"{name} {self.shares[name]:.4g}: {m.source}" for name, m in self.members.items())
        self.source = sources if ratio is None else f"{ratio:g} for each normal image, of {sources}"

    def setup(self, normals: Sequence[np.ndarray]) -> None:
        """Set up the members of a weight above 0."""
        for member in self.members.values():
            member.setup(normals)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return what the drawn member makes: the (H, W, 3) uint8 image and its (H, W) bool mask."""
        member = self.members[str(rng.choice(list(self.shares), p=list(self.shares.values())))]
        changed, mask = member(image, rng)
        for _ in range(0 if self.ratio is None else TRIES - 1):
            if mask.any():
                break
            changed, mask = member(image, rng)
        return changed, mask
