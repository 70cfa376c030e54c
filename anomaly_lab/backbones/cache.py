"""Results that are dear to compute, kept on the disk by what they were computed from."""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError

log = logging.getLogger(__name__)
CHECKED_EVERY = 2**28  # bytes; to add up a large folder takes a while
ONE_MINUTE = 60  # seconds
ONE_DAY = 86400  # seconds
SMALL = 2**14  # bytes; a file up to this size, once read, stays in memory for the next cell of a sweep
HEX = "[0-9a-f]"


@final
class Cache:
    """Arrays in files, each under the digest of all that it depends on; keys are `digest`'s 40 hex digits.

    Several processes may share a folder: a file appears whole, by a rename, and whoever finds it gone or
    damaged computes the value again. Only files named like its own are ever removed. A full disk, or a folder
    that cannot be written, costs time but ends no run.

    Args:
        folder: where the files lie; ``~`` is the home.
        gigabytes: of all files together; beyond it those that were not used for the longest time go. 0 keeps
            nothing.
    """

    def __init__(self, folder: str, gigabytes: float) -> None:
        if gigabytes < 0:
            raise ConfigError(f"cache.gigabytes: {gigabytes}; give a size, or 0 to keep nothing")
        self.folder = Path(folder).expanduser()
        self.limit = int(gigabytes * 2**30)
        self.writes = self.limit > 0
        self.unchecked = min(CHECKED_EVERY, self.limit)  # so the first value written looks at what lies there
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> "Cache":
        return self  # a place, not a value; its lock cannot be copied

    def get(self, key: str) -> np.ndarray | None:
        """Return the read-only array under a key, memory-mapped unless it is small, or None."""
        file = self._file(key)
        if not self.limit:
            return None
        try:
            found = file.stat()
            value = (
                _small(file) if found.st_size <= SMALL else np.load(file, mmap_mode="r", allow_pickle=False)
            )
        except (OSError, ValueError, EOFError):
            return None  # absent, just thrown out by another process, or cut off by a crash
        if time.time() - found.st_mtime > ONE_MINUTE:
            with suppress(OSError):
                os.utime(file)  # it was used
        return value

    def put(self, key: str, value: np.ndarray) -> None:
        """Keep an array; the longest unused ones go when there are too many."""
        if not self.writes:
            return
        file = self._file(key)
        part = file.with_name(f"{key}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as opened:
                np.save(opened, value, allow_pickle=False)
            part.replace(file)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            log.warning(
                "cache: %s cannot be written (%s); what is computed from now on is not kept", file, error
            )
            self.writes = False
            return
        with self.lock:
            self.unchecked += value.nbytes
            if self.unchecked >= min(CHECKED_EVERY, self.limit):
                self.unchecked = 0
                self._shrink()

    def tensor(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the tensor under a key, on the CPU; computed, and kept, if it is not there."""
        found = self.get(key)
        if found is None:
            found = compute().cpu().numpy()
            self.put(key, found)
        return torch.from_numpy(np.array(found))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _shrink(self) -> None:
        """Throw out the longest unused files.

        Nine tenths of the limit are left, so that the next look is far.
        """
        files = []
        for file in self.folder.glob(f"{HEX * 2}/{HEX * 2}*"):
            with suppress(OSError):  # another process was faster
                found = file.stat()
                if re.fullmatch(r"[0-9a-f]{40}\.npy", file.name):
                    files.append((found.st_mtime, found.st_size, file))
                elif (
                    re.fullmatch(r"[0-9a-f]{40}\.[\d-]+\.part", file.name)
                    and found.st_mtime < time.time() - ONE_DAY
                ):
                    file.unlink()  # what a killed process left
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return
        for _, size, file in sorted(files):
            with suppress(OSError):
                file.unlink()
            total -= size
            if total <= 0.9 * self.limit:
                return


@lru_cache(maxsize=2**12)
def _small(file: Path) -> np.ndarray:
    """Return what the file holds.

    It is read once, as the name is the digest of what the content was made from.
    """
    value: np.ndarray = np.load(file, allow_pickle=False)
    value.flags.writeable = False
    return value


def digest(*parts: object) -> str:
    """Return 40 hex digits (of SHA-256) of texts, numbers, and tensors or arrays with types and shapes."""
    found = hashlib.sha256()
    for part in parts:
        value = part.detach().cpu().contiguous().numpy() if isinstance(part, Tensor) else part
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).data)
        else:
            found.update(f"{value!r}|".encode())
    return found.hexdigest()[:40]
