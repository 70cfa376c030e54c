"""anomaly_lab: train, score and compare methods of industrial visual anomaly detection."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomaly_lab.inference import LoadedRun

# Importing albumentations asks a server for its newest version; nothing here goes to the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(run: str | Path) -> "LoadedRun":
    """Return a finished run, ready to score arrays: ``load(RUN).predict([array])``."""
    from anomaly_lab.inference import LoadedRun  # noqa: PLC0415 - torch is not imported to print a help text

    return LoadedRun(run)
