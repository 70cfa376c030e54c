"""One process at a time works on a run directory, and one at a time on a training."""

import fcntl
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self, TextIO
from uuid import uuid4

from anomaly_lab.errors import BusyError, RunError

log = logging.getLogger(__name__)
SWEEP = "ANOMALY_LAB_SWEEP"  # the variable that says which sweep a process does a job of, if any
HEARTBEAT_SECONDS = 30
LIVES = 4 * HEARTBEAT_SECONDS  # after a heartbeat
KEPT = {".ckpt", ".csv", ".json", ".log", ".npz", ".part", ".png", ".txt", ".yaml"}  # what a run keeps
PATIENCE = 1.0  # seconds between two looks at what another process holds


class Holder(NamedTuple):
    """Who holds a file, as it says itself."""

    host: str
    pid: str
    boot: str = ""  # of the kernel that runs; empty if that says none
    sweep: str = ""  # that the process does a job of, if any

    @classmethod
    def this(cls) -> Self:
        """Return this process."""
        file = Path("/proc/sys/kernel/random/boot_id")
        boot = file.read_text().strip() if file.exists() else ""
        return cls(socket.gethostname(), str(os.getpid()), boot, os.environ.get(SWEEP, ""))

    @classmethod
    def of(cls, file: TextIO) -> Self | None:
        """Return who an opened file names, if it does."""
        file.seek(0)
        words = ["" if word == "-" else word for word in file.read().split()]
        return cls(*words) if 2 <= len(words) <= len(cls._fields) else None

    def __str__(self) -> str:
        return " ".join(word or "-" for word in self)

    def elsewhere(self) -> bool:
        """Say whether it runs on another kernel, where flock may not reach.

        A container that is started again has another host's name, and a machine that is another boot.
        """
        here = Holder.this()
        return self.host != here.host and (not self.boot or self.boot != here.boot)

    def beside(self) -> bool:
        """Say whether it does another job of the same sweep."""
        return bool(self.sweep) and self.sweep == Holder.this().sweep


class Held(NamedTuple):
    """Why a file cannot be had."""

    reason: str
    beside: bool  # another job of this sweep has it


@contextmanager
def one_sweep() -> Iterator[None]:
    """Let the processes that the body starts, and this one, know that they do jobs of one sweep."""
    before = os.environ.get(SWEEP)
    os.environ[SWEEP] = uuid4().hex
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWEEP]
        else:
            os.environ[SWEEP] = before


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if need be, while the body runs.

    Another job of the same sweep that holds it is waited for: some keys make no other run, and a launcher may
    start both at once.

    Raises:
        RunError: the folder is not there and cannot be made, or something in it would lead writing elsewhere.
        BusyError: a living process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); give another runs=FOLDER") from error
    _check_plain(folder)
    said = "waits for another job of this sweep, which does the same run"
    while True:
        with _held(folder / ".lock") as other:
            if other is None:
                yield
                return
        if not other.beside:
            raise BusyError(f"{folder}: {other.reason}; skipped, give the same command again later")
        if said:
            log.info("%s: %s", folder, said)
        said = ""
        time.sleep(PATIENCE)


@contextmanager
def in_turn(file: Path, say: Callable[[], None]) -> Iterator[None]:
    """Hold a file, which is there only as long as it is held; wait while a living process holds it.

    Args:
        file: is made.
        say: is called once before it waits.
    """
    said = False
    while True:
        with _held(file) as other:
            if other is None:
                try:
                    yield
                finally:
                    file.unlink(missing_ok=True)
                return
        if not said:
            say()
        said = True
        time.sleep(PATIENCE)


def is_held(folder: Path) -> bool:
    """Say whether a living process holds a folder by `locked`; nothing is held or waited for."""
    return _holder(folder) is not None


def works_beside(folder: Path) -> bool:
    """Say whether a living process that does a job of the same sweep holds a folder."""
    holder = _holder(folder)
    return holder is not None and holder.beside()


def _holder(folder: Path) -> Holder | None:
    """Return the living process that holds a folder, as far as it says who it is."""
    try:
        with (folder / ".lock").open() as file:
            holder = Holder.of(file)
            if holder is not None and holder.elsewhere():
                return holder if time.time() - os.fstat(file.fileno()).st_mtime < LIVES else None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return holder or Holder("", "")
    except OSError:  # there is no lock, or none that can be read
        return None
    return None


def forget_dead(file: Path) -> None:
    """Remove a file of `in_turn` whose holder was killed; one that a living process holds stays."""
    if file.is_file():
        with _held(file) as other:
            if other is None:
                file.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[Held | None]:
    """Hold a file while the body runs; gives who has it, and holds nothing, if a living process does.

    flock ends with its holder; across hosts, where flock may not reach, the file's heartbeat tells.
    """
    with path.open("a+") as file:
        holder = Holder.of(file)
        age = time.time() - os.fstat(file.fileno()).st_mtime
        if holder is not None and holder.elsewhere() and age < LIVES:
            yield Held(f"{holder.host} works on it, or did {age:.0f} s ago", holder.beside())
            return
        if not _taken(file) or not _is_there(file, path):
            holder = Holder.of(file)
            yield Held("another process works on it", holder is not None and holder.beside())
            return
        os.ftruncate(file.fileno(), 0)
        with suppress(OSError):  # a full disk: what the run writes first says so, and flock holds
            os.write(file.fileno(), str(Holder.this()).encode())
        ended = threading.Event()
        threading.Thread(target=_beat, args=(file.fileno(), ended), daemon=True).start()
        try:
            yield None
        finally:
            ended.set()
            os.ftruncate(file.fileno(), 0)


def _check_plain(folder: Path) -> None:
    """Raise RunError for a link, pipe or device in a run directory, as what is opened to write follows it.

    And for a folder by the name of a file.
    """
    for parent, folders, files in os.walk(folder):
        for entry in (Path(parent, name) for name in (*folders, *files)):
            mode = entry.lstat().st_mode
            if stat.S_ISDIR(mode) and (entry.name == ".lock" or entry.suffix in KEPT):
                raise RunError(f"{entry}: is a folder, where a run keeps a file; remove it")
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise RunError(
                    f"{entry}: is a link, pipe or device, through which a run writes nothing; remove it"
                )
        folders[:] = [name for name in folders if name != "wandb"]  # W&B links its latest files there


def _is_there(file: TextIO, path: Path) -> bool:
    """Say whether the file still has this name: its last holder may have removed it since it was opened."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _taken(file: TextIO) -> bool:
    """Take the lock.

    The loader workers of a killed holder keep it for some seconds more, which are waited for; and so is a
    holder that has yet to write who it is.
    """
    for turn in range(40):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = Holder.of(file)
            unknown = holder is None and turn >= 4
            lives = holder is not None and Path("/proc", holder.pid).exists()
            if unknown or lives or not Path("/proc/self").exists():
                return False
            time.sleep(0.25)
        else:
            return True
    return False


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):  # a disk of the network that is gone for a moment
            os.utime(descriptor)
