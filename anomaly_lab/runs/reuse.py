"""A training that was done is not done again: a run that differs in evaluation alone takes its weights."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from anomaly_lab.errors import RunError
from anomaly_lab.runs.checkpoints import read_checkpoint
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import forget_dead, in_turn
from anomaly_lab.runs.reading import one_line

log = logging.getLogger(__name__)
# By the path of a run that this process found finished, its training hash.
FINISHED: dict[str, str] = {}


@contextmanager
def trained_once(directory: RunDirectory, training_hash: str) -> Iterator[None]:
    """Take the weights of this training if they are anywhere beside the directory, else let the body train.

    While another process does a run with the same training, it is waited for, and its weights are taken: they
    count as trained once that run is done. Who waits holds its own directory alone, for which at most another
    job that is the same run waits; who dies is waited for no more.
    """
    file = directory.path.parent / f".training-{training_hash[:16]}.lock"
    if not directory.checkpoint.exists():
        take_weights(directory, training_hash)
    if directory.checkpoint.exists():
        forget_dead(file)  # of a run that was killed once its weights were kept
        yield
        return
    with in_turn(file, lambda: log.info("%s: waits for a run that trains the same", directory.path)):
        take_weights(directory, training_hash)
        yield


def take_weights(directory: RunDirectory, training_hash: str) -> None:
    """Take the weights of the first finished run beside it with the same training, if there is one.

    The manifest names that run, as ``trained_in``, before the weights are there. A damaged run is passed over
    with a warning.
    """
    with os.scandir(directory.path.parent) as entries:
        beside = [entry.path for entry in entries if entry.is_dir() and entry.path != str(directory.path)]
    # Thousands of runs may lie here: what finished with another training is not read again
    for path in sorted(path for path in beside if FINISHED.get(path, training_hash) == training_hash):
        trained = RunDirectory(Path(path))
        if _is_finished(trained, training_hash):
            origin = trained.manifest().get("trained_in", trained.path.name)
            directory.note(trained_in=one_line(origin))
            _copy(trained, directory)
            log.info("trains nothing: takes the weights of %s", trained.path)
            return


def _is_finished(trained: RunDirectory, training_hash: str) -> bool:
    try:
        manifest = trained.manifest()
        if manifest.get("status") != "done":
            return False
        FINISHED[str(trained.path)] = str(manifest.get("training_hash"))
        if manifest.get("training_hash") != training_hash or not trained.checkpoint.exists():
            return False
        found = trained.checkpoint.stat()
        _read_once(trained.checkpoint, training_hash, found.st_ino, found.st_size, found.st_mtime_ns)
    except (RunError, OSError) as error:  # which another process may just have removed
        log.warning("passed over: %s", error)
        return False
    return True


@lru_cache(maxsize=2**10)  # the cells of a sweep share their weights
def _read_once(file: Path, training_hash: str, *_: int) -> None:
    read_checkpoint(file, training_hash)


def _copy(trained: RunDirectory, directory: RunDirectory) -> None:
    """Let both folders be whole on their own."""
    try:
        directory.checkpoint.hardlink_to(trained.checkpoint)
    except OSError:  # a disk without links
        with directory.replacing(directory.checkpoint.name) as file:
            shutil.copyfile(trained.checkpoint, file)
