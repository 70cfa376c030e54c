"""What makes a run this one: its config, its data, the weights that it starts from."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, final

from anomaly_lab.backbones.weights import weights_identity
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.splits import content


@final
@dataclass(frozen=True)
class Identity:
    """Goes into the manifest as it is.

    Attributes:
        config_hash: another one is another run.
        training_hash: of all that the weights depend on: they are neither gone on with nor shared if any of
            it differs.
        data_fingerprint, synthesis_source, weights, own_code: what the run is made from besides its config.
        data_content: of the data without what a seed changes, which images are held out; alike for all seeds.
    """

    config_hash: str
    training_hash: str
    seed: int
    data_fingerprint: str
    synthesis_source: str
    weights: list[str]
    own_code: dict[str, str]  # of each module outside this package that the config names, a hash of its file
    data_content: str

    @classmethod
    def of(
        cls,
        hashes: tuple[str, str],
        seed: int,
        weights_words: Sequence[str],
        own_modules: Sequence[str],
        data: AnomalyDataModule,
    ) -> Self:
        """Return the identity; reads every file of the data set that was not hashed before.

        Args:
            hashes: of the config, and of the part of it that the weights depend on.
            seed: of the run.
            weights_words: what the config says of pretrained weights: imagenet, bundled, random or a file.
            own_modules: names of imported modules outside this package that the config names.
            data: listed, not yet decoded.
        """
        config_hash, recipe_hash = hashes
        weights = [weights_identity(word) for word in weights_words]
        own_code = {name: _code_hash(name) for name in own_modules}
        made_from: dict[str, Any] = {
            "data_fingerprint": data.fingerprint,
            "synthesis_source": data.synthesis.source,
            "weights": weights,
            "own_code": own_code,
        }
        training = json.dumps([recipe_hash, seed, made_from]).encode()
        training_hash = hashlib.sha256(training).hexdigest()
        return cls(config_hash, training_hash, seed, **made_from, data_content=content(data.files))

    @property
    def made_from(self) -> dict[str, Any]:
        """What a finished run must have been made from to be this one."""
        kept = ("data_fingerprint", "synthesis_source", "weights", "own_code")
        return {name: value for name, value in self.described().items() if name in kept}

    def described(self) -> dict[str, Any]:
        """Return all of it, as plain types."""
        return asdict(self)


def _code_hash(module: str) -> str:
    """Return 16 hex digits of the file that a module was imported from; what that imports does not count."""
    file = sys.modules[module].__file__
    source = Path(file).read_bytes() if file else b""
    return hashlib.blake2b(source, digest_size=8).hexdigest()
