"""One process at a time works on a run directory."""

import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from anomaly_lab.errors import RunError

HEARTBEAT_SECONDS = 30


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder while the body runs; gives False, and holds nothing, if a living process has it.

    flock ends with its holder; across hosts, where flock may not reach, the file's heartbeat tells.

    Raises:
        RunError: the folder is not there and cannot be made, or something in it would lead writing elsewhere.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); give another runs=FOLDER") from error
    _check_plain(folder)
    with (folder / ".lock").open("a+") as file:
        file.seek(0)
        holder = file.read().split()
        elsewhere = len(holder) == 2 and holder[0] != socket.gethostname()
        beating = time.time() - os.fstat(file.fileno()).st_mtime < 4 * HEARTBEAT_SECONDS
        if (elsewhere and beating) or not _taken(file, holder):
            yield False
            return
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}")
        file.flush()
        ended = threading.Event()
        threading.Thread(target=_beat, args=(file.fileno(), ended), daemon=True).start()
        try:
            yield True
        finally:
            ended.set()
            file.truncate(0)


def _check_plain(folder: Path) -> None:
    """Raise RunError for a link, pipe or device in a run directory, as what is opened to write follows it."""
    for parent, folders, files in os.walk(folder):
        for entry in (Path(parent, name) for name in (*folders, *files)):
            mode = entry.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise RunError(
                    f"{entry}: is a link, pipe or device, through which a run writes nothing; remove it"
                )
        folders[:] = [name for name in folders if name != "wandb"]  # W&B links its latest files there


def _taken(file: TextIO, holder: list[str]) -> bool:
    """Take the lock.

    The loader workers of a killed holder keep it for some seconds more, which are waited for.
    """
    for _ in range(40):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if len(holder) != 2 or Path("/proc", holder[1]).exists() or not Path("/proc/self").exists():
                return False
            time.sleep(0.25)
        else:
            return True
    return False


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        os.utime(descriptor)
