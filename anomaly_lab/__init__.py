"""anomaly_lab: train, score and compare methods of industrial visual anomaly detection."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomaly_lab.loading import LoadedRun
    from anomaly_lab.runs.recording import Finished

# Importing albumentations asks a server for its newest version; nothing here goes to the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> "Finished":
    """Train and test as ``python -m anomaly_lab OVERRIDES`` does; a finished run is not done again.

    Args:
        overrides: as on the command line, such as ``["model=patchcore_small", "data=demo"]``.
        config_dir: a folder with recipes and code of one's own, as ``--config-dir``.

    Returns:
        ``metrics`` by name, and ``path`` of the run directory.

    Raises:
        UserError: a subclass of it says in one line what is wrong.
    """
    # Spares Hydra where only metrics are wanted.
    from anomaly_lab.config.command_line import asked_from_python  # noqa: PLC0415

    # Spares torch where only --help is wanted.
    from anomaly_lab.train import run as train_and_test  # noqa: PLC0415

    return train_and_test(asked_from_python(overrides, None if config_dir is None else Path(config_dir)))


def load(path: str | Path, *, allow: Sequence[str] = ()) -> "LoadedRun":
    """Return a finished run, ready to score arrays: ``load(RUN).predict([array])``.

    Args:
        path: of the run directory.
        allow: top-level modules outside this package whose classes the run's config may name; they must be
            importable.

    Raises:
        RunError: it is no finished run, or its config or weights do not fit.
    """
    from anomaly_lab.loading import LoadedRun  # noqa: PLC0415 - spares torch where only --help is wanted

    return LoadedRun(path, allow)
