"""Results that are dear to compute, kept on the disk by what they were computed from."""

import hashlib
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, final

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from anomaly_lab.errors import ConfigError

log = logging.getLogger(__name__)
CHECKED_EVERY = 2**28  # bytes; to add up a large folder takes a while
ONE_MINUTE = 60  # seconds
ONE_DAY = 86400  # seconds
SMALL = 2**14  # bytes; a file up to this size, once read, stays in memory for the next cell of a sweep
HEX = "[0-9a-f]"
MARK = b"crc32"  # before the checksum of all bytes that precede it, at the end of each file
END = len(MARK) + 4  # bytes
CHUNK = 2**20  # bytes that are summed at a time
# Files that were found whole in this process, each with what tells that nobody wrote it since.
WHOLE: dict[Path, tuple[int, int, int]] = {}


@final
class Cache:
    """Arrays in files, each under the digest of all that it depends on; keys are `digest`'s 40 hex digits.

    Several processes may share a folder: a file appears whole, by a rename, and whoever finds it gone or
    damaged computes the value again. A file is numpy's .npy format and a checksum behind it, which a process
    compares once. Only files named like its own are ever removed. A full disk, or a folder that cannot be
    written, costs time but ends no run.

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
        self.told = False  # that a file is damaged

    def __deepcopy__(self, memo: object) -> "Cache":
        return self  # a place, not a value; its lock cannot be copied

    def get(self, key: str, dtype: DTypeLike, shape: Sequence[int | None]) -> np.ndarray | None:
        """Return the read-only array under a key, memory-mapped unless it is small, or None.

        Where ``shape`` is None any length will do. What is damaged or of another kind is None, and said once.
        """
        file = self._file(key)
        if not self.limit:
            return None
        try:
            value = _read(file)
            fits = len(value.shape) == len(shape) and value.dtype == np.dtype(dtype)
            if not fits or any(want not in (None, has) for has, want in zip(value.shape, shape, strict=True)):
                raise ValueError(f"{value.dtype} of shape {value.shape}")
        except OSError:
            return None  # absent, or just thrown out by another process
        except ValueError as error:
            if not self.told:
                self.told = True
                text = "cache: %s is not what was kept (%s): it is computed again, like any other such file"
                log.warning(text, file, error)
            return None
        return value

    def put(self, key: str, value: np.ndarray) -> None:
        """Keep an array; the longest unused ones go when there are too many."""
        if not self.writes:
            return
        file = self._file(key)
        part = file.with_name(f"{key}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w+b") as opened:
                np.save(opened, value, allow_pickle=False)
                length = opened.tell()
                opened.seek(0)
                end = _end(opened, length)
                opened.seek(length)
                opened.write(end)
                opened.flush()
                os.fsync(opened.fileno())  # else a power cut may leave the name without the content
            part.replace(file)
        except OSError as error:
            log.warning(
                "cache: %s cannot be written (%s); what is computed from now on is not kept", file, error
            )
            self.writes = False
            return
        finally:  # also after Ctrl-C and SIGTERM
            with suppress(OSError):
                part.unlink()
        with self.lock:
            self.unchecked += value.nbytes
            if self.unchecked >= min(CHECKED_EVERY, self.limit):
                self.unchecked = 0
                self._shrink()

    def tensor(
        self, key: str, compute: Callable[[], Tensor], dtype: DTypeLike, shape: Sequence[int | None]
    ) -> Tensor:
        """Return the tensor under a key, on the CPU; computed, and kept, if `get` has none."""
        found = self.get(key, dtype, shape)
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


def _read(file: Path) -> np.ndarray:
    """Return the array in a file, after its checksum was compared, and note that it was used.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what `Cache.put` wrote.
    """
    found = file.stat()
    if WHOLE.get(file) != _state(found):
        with file.open("rb") as opened:
            wanted = _end(opened, found.st_size - END)
            end = opened.read()
        if end != wanted:
            raise ValueError("its checksum differs" if end.startswith(MARK) else "it has no checksum")
        WHOLE[file] = _state(found)
    value: np.ndarray = (
        _small(file) if found.st_size <= SMALL else np.load(file, mmap_mode="r", allow_pickle=False)
    )
    if time.time() - found.st_mtime > ONE_MINUTE:
        with suppress(OSError):
            os.utime(file)
            WHOLE[file] = _state(file.stat())
    return value


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _end(opened: BinaryIO, length: int) -> bytes:
    """Return what belongs behind the next ``length`` bytes of a file."""
    checksum = 0
    while length > 0 and (chunk := opened.read(min(CHUNK, length))):
        checksum = zlib.crc32(chunk, checksum)
        length -= len(chunk)
    return MARK + checksum.to_bytes(4, "little")


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
