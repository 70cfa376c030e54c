"""A training that was done is not done again: a run that differs in its evaluation alone takes its weights."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomaly_lab.errors import RunError
from anomaly_lab.results import RunDirectory

log = logging.getLogger(__name__)


def take_weights(directory: RunDirectory, manifest: dict[str, Any], manifests: Sequence[Path]) -> None:
    """Take the weights of the first finished run with the same training, if there is one; the manifest says whose."""
    for file in sorted(manifests):
        trained = RunDirectory(file.parent)
        if _is_finished(trained, manifest["training_hash"]):
            manifest["trained_in"] = trained.manifest().get("trained_in", trained.path.name)
            directory.write_json("manifest.json", manifest)
            _copy(trained, directory)
            log.info("trains nothing: takes the weights of %s", trained.path)
            return


def _is_finished(trained: RunDirectory, training_hash: str) -> bool:
    try:
        manifest = trained.manifest()
    except RunError as error:
        log.warning("%s", error)
        return False
    same = manifest.get("training_hash") == training_hash
    return manifest.get("status") == "done" and same and trained.checkpoint.exists()


def _copy(trained: RunDirectory, directory: RunDirectory) -> None:
    """Let both folders be whole on their own."""
    try:
        directory.checkpoint.hardlink_to(trained.checkpoint)
    except OSError:  # a disk without links
        with directory.replacing(directory.checkpoint.name) as file:
            shutil.copyfile(trained.checkpoint, file)
