"""What files hold, as hashes."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from anomaly_lab.data.file_states import state_of
from anomaly_lab.data.images import masks_of, named


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """Return `content_hash` of each, by threads."""
    # Singly, handing over would cost most.
    parts = (paths[start : start + 32] for start in range(0, len(paths), 32))
    with ThreadPoolExecutor() as pool:
        return [
            digest for part in pool.map(lambda part: list(map(content_hash, part)), parts) for digest in part
        ]


def content_hash(path: Path) -> str:
    """Return 32 hex digits (BLAKE2b) of a file's bytes, or of the digests of all files of a folder of masks.

    What was hashed before is not read again, unless it is another file, its size or a time is another, or too
    young to tell.

    Raises:
        DataError: it cannot be read.
    """
    if path.is_dir() and (files := masks_of(path)):
        return hashlib.blake2b("".join(map(content_hash, files)).encode(), digest_size=16).hexdigest()
    with named(path):
        return _hashed(path, state_of(path))


@lru_cache(maxsize=2**17)
def _hashed(path: Path, *_: object) -> str:
    with path.open("rb") as opened:  # in pieces: many threads read large files at once
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
