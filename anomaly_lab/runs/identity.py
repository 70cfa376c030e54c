"""What makes a run this one: its config, its data, the weights that it starts from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, final

from anomaly_lab.backbones.weights import weights_identity
from anomaly_lab.data.base import AnomalyDataModule


@final
@dataclass(frozen=True)
class Identity:
    """Goes into the manifest as it is.

    Attributes:
        config_hash: another one is another run.
        training_hash: of all that the weights depend on: they are neither gone on with nor shared if any of
            it differs.
        data_fingerprint, synthesis_source, weights: what the run is made from besides its config.
    """

    config_hash: str
    training_hash: str
    seed: int
    data_fingerprint: str
    synthesis_source: str
    weights: list[str]

    @classmethod
    def of(
        cls, hashes: tuple[str, str], seed: int, weights_words: Sequence[str], data: AnomalyDataModule
    ) -> Self:
        """Return the identity; reads every file of the data set that was not hashed before.

        Args:
            hashes: of the config, and of the part of it that the weights depend on.
            seed: of the run.
            weights_words: what the config says of pretrained weights: imagenet, bundled, random or a file.
            data: listed, not yet decoded.
        """
        config_hash, recipe_hash = hashes
        weights = [weights_identity(word) for word in weights_words]
        made_from = {
            "data_fingerprint": data.fingerprint,
            "synthesis_source": data.synthesis.source,
            "weights": weights,
        }
        training = json.dumps([recipe_hash, seed, made_from]).encode()
        training_hash = hashlib.sha256(training).hexdigest()
        return cls(config_hash, training_hash, seed, data.fingerprint, data.synthesis.source, weights)

    @property
    def made_from(self) -> dict[str, Any]:
        """What a finished run must have been made from to be this one."""
        kept = ("data_fingerprint", "synthesis_source", "weights")
        return {name: value for name, value in self.described().items() if name in kept}

    def described(self) -> dict[str, Any]:
        """Return all of it, as plain types."""
        return asdict(self)
