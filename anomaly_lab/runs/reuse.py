"""A training that was done is not done again: a run that differs in evaluation alone takes its weights."""

import logging
import shutil

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory

log = logging.getLogger(__name__)


def take_weights(directory: RunDirectory, training_hash: str) -> None:
    """Take the weights of the first finished run beside it with the same training, if there is one.

    The manifest names that run, as ``trained_in``, before the weights are there.
    """
    for file in sorted(directory.path.parent.glob("*/manifest.json")):
        trained = RunDirectory(file.parent)
        if trained.path != directory.path and _is_finished(trained, training_hash):
            origin = trained.manifest().get("trained_in", trained.path.name)
            directory.note(trained_in=origin)
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
