"""The hashes of files: of their bytes, and computed again whenever these may be others."""

import hashlib
import os
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from anomaly_lab.data import file_states
from anomaly_lab.data.content import content_hash, content_hashes
from anomaly_lab.errors import DataError

RNG = np.random.default_rng(7)


def test_the_hash_is_of_the_bytes(tmp_path):
    path = tmp_path / "a.bin"
    for data in (b"", b"abc", RNG.bytes(300_000)):
        path.write_bytes(data)
        assert content_hash(path) == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_a_file_is_hashed_again_if_it_may_have_changed(tmp_path, monkeypatch):
    path, reads, read, late = tmp_path / "a.bin", [], hashlib.file_digest, [0]
    now = time.time_ns
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: reads.append(given) or read(*given))
    monkeypatch.setattr(file_states.time, "time_ns", lambda: now() + late[0])
    path.write_bytes(b"one")
    assert content_hash(path) == content_hash(path)  # its times are too young to tell two writes apart
    assert len(reads) == 2
    late[0] = 3600 * 10**9
    assert content_hashes([path] * 100) == [hashlib.blake2b(b"one", digest_size=16).hexdigest()] * 100
    known = len(reads)
    assert content_hash(path) == content_hash(path)
    assert len(reads) == known
    before = path.stat()
    # of the same size, and with the time of the file before it, as a copy may keep it
    path.write_bytes(b"two")
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_hash(path) == hashlib.blake2b(b"two", digest_size=16).hexdigest()


def test_a_large_file_is_not_held_in_memory(tmp_path):
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(2**23))
    tracemalloc.start()
    try:
        assert content_hash(file) == hashlib.blake2b(bytes(2**23), digest_size=16).hexdigest()
        tracemalloc.reset_peak()
        os.utime(file, (1, 1))
        content_hash(file)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_another_file_under_a_known_name_is_hashed(tmp_path, monkeypatch):
    stat = Path.stat

    def alike(path: Path, **named: bool) -> SimpleNamespace:  # as files of one archive may be
        found = stat(path, **named)
        same = {"st_mtime_ns": 1, "st_ctime_ns": 1}
        return SimpleNamespace(
            st_dev=found.st_dev, st_ino=found.st_ino, st_size=3, st_mode=found.st_mode, **same
        )

    monkeypatch.setattr(Path, "stat", alike)
    for version in ("one", "two"):
        (tmp_path / f"{version}.bin").write_bytes(version.encode())
        link = tmp_path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / f"{version}.bin")
        assert content_hash(link) == hashlib.blake2b(version.encode(), digest_size=16).hexdigest()


def test_a_broken_mask_in_a_folder_is_named_once(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError) as error:
        content_hash(tmp_path / "masks")
    assert str(error.value).count("replace the file") == 1
    assert "masks/a.png" in str(error.value)
