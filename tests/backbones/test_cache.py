"""What the cache keeps, what it throws out, and what other processes and full disks do to it."""

import io
import multiprocessing
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_lab.backbones import cache as cache_module
from anomaly_lab.backbones.cache import END, Cache, digest
from anomaly_lab.errors import ConfigError, Terminated

KEY = digest("key")


def got(cache: Cache, key: str, dtype: object = np.float32) -> np.ndarray | None:
    """Return what a cache has of a vector."""
    return cache.get(key, dtype, (None,))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_value_is_computed_once_and_comes_back_to_the_bit(tmp_path):
    cache, calls = Cache(str(tmp_path), 1), []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(6.0).view(2, 3) / 7

    first, second = (
        cache.tensor(KEY, compute, np.float32, (2, 3)),
        cache.tensor(KEY, compute, np.float32, (2, 3)),
    )
    assert len(calls) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, torch.arange(6.0).view(2, 3) / 7)
    second.zero_()  # what is handed out is the caller's
    assert cache.tensor(KEY, compute, np.float32, (2, 3)).sum() > 0


def test_a_value_is_mapped_not_read(tmp_path):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(5000, np.float32))
    found = got(cache, KEY)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_a_small_value_is_read_once_and_not_after_its_file_is_gone(tmp_path, monkeypatch):
    cache, reads, load = Cache(str(tmp_path), 1), [], np.load
    cache.put(KEY, np.ones(5, np.float32))
    monkeypatch.setattr(np, "load", lambda *given, **named: reads.append(given) or load(*given, **named))
    found = [got(Cache(str(tmp_path), 1), KEY) for _ in range(3)]
    assert len(reads) == 1
    for value in found:
        np.testing.assert_array_equal(value, np.ones(5, np.float32))
        assert not value.flags.writeable
    files(tmp_path)[0].unlink()
    assert got(cache, KEY) is None


def npy(value: np.ndarray, end: bytes = b"") -> bytes:
    """Return a file of numpy's, and what stands behind it."""
    written = io.BytesIO()
    np.save(written, value)
    return written.getvalue() + end


def headed(text: str, data: bytes) -> bytes:
    """Return a file of numpy's with a header of one's own."""
    header = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + data


def flipped(data: bytes, position: int) -> bytes:
    """Return other bytes: one bit differs."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def zipped(_: bytes) -> bytes:
    """Return several arrays in a file, which numpy opens as well."""
    written = io.BytesIO()
    np.savez(written, np.ones(3))
    return written.getvalue()


DAMAGE = {
    "another value": lambda data: flipped(data, 300),
    "another type": lambda data: flipped(data, data.index(b"<f4") + 2),
    "another shape": lambda data: data.replace(b"(9000,)", b"(8999,)").replace(b"(90,)", b"(89,)"),
    "another checksum": lambda data: flipped(data, len(data) - 1),
    "zeros": lambda data: bytes(len(data)),
    "zeros behind the header": lambda data: data[:128].ljust(len(data), b"\0"),
    "empty": lambda _: b"",
    "a part of the header": lambda data: data[:40],
    "a part": lambda data: data[:300],
    "all but the last byte": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "an array without checksum": lambda _: npy(np.zeros(90, np.float32)),
    "an older checksum": lambda data: npy(np.zeros(90, np.float32), data[-END:]),
    "another order of bytes": lambda _: npy(np.zeros(90, ">f4")),
    "an archive": zipped,
    "what looks like an archive": lambda _: b"PK\x03\x04" + b"x" * 500,
    "a header that does not end": lambda data: headed("((((", data[128:]),
    "a shape beyond the file": lambda data: headed(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }", data[128:]
    ),
    "text": lambda _: b"disk full\n" * 30,
}


@pytest.mark.parametrize("length", [90, 9000])  # one stays in memory, the other is mapped
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_computed_again_and_said_once(tmp_path, caplog, damage, length):
    value = torch.arange(float(length)) / 7
    keys = [digest(damage, length), digest(damage, length, "other")]
    for key in keys:
        Cache(str(tmp_path), 1).put(key, value.numpy())
        file = tmp_path / key[:2] / f"{key}.npy"
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    cache = Cache(str(tmp_path), 1)
    for key in keys:
        assert cache.get(key, np.float32, (length,)) is None
        assert torch.equal(cache.tensor(key, lambda: value, np.float32, (length,)), value)
        np.testing.assert_array_equal(Cache(str(tmp_path), 1).get(key, np.float32, (length,)), value)
    (message,) = caplog.messages
    assert "computed again" in message
    assert keys[0] in message


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.float64, (2, 3)), (">f4", (2, 3)), (np.float32, (2, 4)), (np.float32, (6,)), (np.float32, (None,))],
)
def test_what_is_of_another_kind_than_wanted_is_computed_again(tmp_path, caplog, dtype, shape):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones((2, 3), np.float32))
    assert cache.get(KEY, dtype, shape) is None
    assert "float32 of shape (2, 3)" in caplog.text
    assert cache.get(KEY, np.float32, (2, None)) is not None


def test_a_file_is_compared_once_a_process_and_again_when_it_was_written_since(tmp_path, monkeypatch):
    compared, end = [], cache_module._end
    monkeypatch.setattr(cache_module, "_end", lambda *given: compared.append(1) or end(*given))
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(9000, np.float32))
    (file,) = files(tmp_path)
    os.utime(file, (1000, 1000))  # so that each use sets the time of the file
    compared.clear()
    for _ in range(3):
        assert got(Cache(str(tmp_path), 1), KEY) is not None
    assert file.stat().st_mtime > 1000
    assert len(compared) == 1
    file.write_bytes(flipped(file.read_bytes(), 500))
    assert got(cache, KEY) is None
    assert len(compared) == 2


def test_a_value_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append((os.fstat(handle), files(tmp_path))) or fsync(handle)
    )
    Cache(str(tmp_path), 1).put(KEY, np.ones(5, np.float32))
    ((state, (part,)),) = synced
    (file,) = files(tmp_path)
    assert part.suffix == ".part"
    assert (state.st_ino, state.st_size) == (file.stat().st_ino, file.stat().st_size)


def test_the_longest_unused_go_first_and_nothing_else_is_touched(tmp_path):
    kilobyte, keys = np.zeros(256, np.float32), [digest(index) for index in range(11)]
    room = 10 * (kilobyte.nbytes + 128 + END) / 2**30  # 128: numpy's header
    cache = Cache(str(tmp_path), room)
    others = [tmp_path / "bottle/000.png", tmp_path / keys[1][:2] / "notes.npy", tmp_path / "ab/abc/deep.npy"]
    others += [tmp_path / keys[2][:2] / f"{keys[2]}.77-1.part"]  # another process writes it now
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0" * 5000)
        os.utime(file, (10, 10)) if file.suffix != ".part" else None
    left = tmp_path / keys[3][:2] / f"{keys[3]}.77-1.part"  # a killed process left it long ago
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"0")
    os.utime(left, (10, 10))
    for index, key in enumerate(keys[:10]):
        cache.put(key, kilobyte)
        os.utime(tmp_path / key[:2] / f"{key}.npy", (1000 + index, 1000 + index))
    assert got(cache, keys[0]) is not None  # used now: it stays
    fresh = Cache(str(tmp_path), room)
    fresh.put(keys[10], kilobyte)
    kept = {file.stem for file in files(tmp_path)} & set(keys)
    assert {keys[0], keys[10]} <= kept
    assert keys[1] not in kept
    assert len(kept) == 9  # nine tenths, so that the next look is far
    assert all(file.exists() for file in others)
    assert not left.exists()


def test_zero_gigabytes_keep_nothing_and_a_negative_size_is_an_error(tmp_path):
    cache = Cache(str(tmp_path), 0)
    cache.put(KEY, np.ones(3, np.float32))
    assert got(cache, KEY) is None
    assert files(tmp_path) == []
    with pytest.raises(ConfigError, match=r"cache\.gigabytes: -1"):
        Cache(str(tmp_path), -1)


def test_a_folder_that_cannot_be_written_costs_time_but_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = Cache(str(tmp_path / "file"), 1)
    for _ in range(2):
        assert cache.tensor(KEY, lambda: torch.ones(2), np.float32, (2,)).tolist() == [1, 1]
    assert len(caplog.messages) == 1
    assert "cannot be written" in caplog.messages[0]


@pytest.mark.parametrize("ends", [KeyboardInterrupt, Terminated, OSError])
def test_what_was_half_written_goes_whatever_ends_it(ends, tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(3, np.float32))
    kept = files(tmp_path)

    def end(_: int) -> None:
        assert len(files(tmp_path)) == 2
        raise ends

    monkeypatch.setattr(os, "fsync", end)
    with nullcontext() if ends is OSError else pytest.raises(ends):
        cache.put(digest("another"), np.ones(3, np.float32))
    assert files(tmp_path) == kept


def test_a_disk_that_became_full_keeps_what_it_has(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(3, np.float32))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.put(digest("other"), np.ones(3, np.float32))
    assert got(cache, digest("other")) is None
    assert got(cache, KEY) is not None
    assert len(files(tmp_path)) == 1


def _write(folder: str, worker: int, found: "multiprocessing.Queue[bool]") -> None:
    cache = Cache(folder, 40 * 4200 / 2**30)  # so small that both throw out what the other just wrote
    good = True
    for round_ in range(200):
        key = digest("shared", round_ % 50)
        value = cache.tensor(key, lambda r=round_: torch.full((1000,), float(r % 50)), np.float32, (1000,))
        good &= bool((value == round_ % 50).all())
    found.put(good)


def test_two_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    workers = [context.Process(target=_write, args=(str(tmp_path), worker, found)) for worker in range(2)]
    for worker in workers:
        worker.start()
    assert [found.get(timeout=120) for _ in workers] == [True, True]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert not [file for file in files(tmp_path) if file.suffix == ".part"]


@pytest.mark.parametrize(
    "other",
    [
        ("layer", torch.zeros(2, 3)),
        ("layer2", torch.ones(2, 3)),
        ("layer", torch.ones(3, 2)),
        ("layer", torch.ones(2, 3, dtype=torch.float64)),
        ("layer", torch.ones(2, 3), None),
        ("laye", "r", torch.ones(2, 3)),
    ],
)
def test_the_digest_tells_content_shape_type_and_order_apart(other):
    assert digest(*other) != digest("layer", torch.ones(2, 3))
    assert digest("layer", torch.ones(2, 3)) == digest("layer", torch.ones(3, 2).T.clone())
