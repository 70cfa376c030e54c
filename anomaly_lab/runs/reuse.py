"""A training that was done is not done again: a run that differs in evaluation alone takes its weights."""

import logging
import shutil

from anomaly_lab.errors import RunError
from anomaly_lab.runs.checkpoints import read_checkpoint
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import one_line

log = logging.getLogger(__name__)


def take_weights(directory: RunDirectory, training_hash: str) -> None:
    """Take the weights of the first finished run beside it with the same training, if there is one.

    The manifest names that run, as ``trained_in``, before the weights are there. A damaged run is passed over
    with a warning.
    """
    for file in sorted(directory.path.parent.glob("*/manifest.json")):
        trained = RunDirectory(file.parent)
        if trained.path != directory.path and _is_finished(trained, training_hash):
            origin = trained.manifest().get("trained_in", trained.path.name)
            directory.note(trained_in=one_line(origin))
            _copy(trained, directory)
            log.info("trains nothing: takes the weights of %s", trained.path)
            return


def _is_finished(trained: RunDirectory, training_hash: str) -> bool:
    try:
        manifest = trained.manifest()
        same = manifest.get("training_hash") == training_hash
        if manifest.get("status") != "done" or not same or not trained.checkpoint.exists():
            return False
        read_checkpoint(trained.checkpoint, training_hash)
    except RunError as error:
        log.warning("passed over: %s", error)
        return False
    return True


def _copy(trained: RunDirectory, directory: RunDirectory) -> None:
    """Let both folders be whole on their own."""
    try:
        directory.checkpoint.hardlink_to(trained.checkpoint)
    except OSError:  # a disk without links
        with directory.replacing(directory.checkpoint.name) as file:
            shutil.copyfile(trained.checkpoint, file)
