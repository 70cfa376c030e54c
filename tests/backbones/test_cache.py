"""What the cache keeps, what it throws out, and what other processes and full disks do to it."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_lab.backbones.cache import Cache, digest
from anomaly_lab.errors import ConfigError

KEY = digest("key")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_value_is_computed_once_and_comes_back_to_the_bit(tmp_path):
    cache, calls = Cache(str(tmp_path), 1), []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(6.0).view(2, 3) / 7

    first, second = cache.tensor(KEY, compute), cache.tensor(KEY, compute)
    assert len(calls) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, torch.arange(6.0).view(2, 3) / 7)
    second.zero_()  # what is handed out is the caller's
    assert cache.tensor(KEY, compute).sum() > 0


def test_a_value_is_mapped_not_read(tmp_path):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(5000, np.float32))
    found = cache.get(KEY)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_a_small_value_is_read_once_and_not_after_its_file_is_gone(tmp_path, monkeypatch):
    cache, reads, load = Cache(str(tmp_path), 1), [], np.load
    cache.put(KEY, np.ones(5, np.float32))
    monkeypatch.setattr(np, "load", lambda *given, **named: reads.append(given) or load(*given, **named))
    found = [Cache(str(tmp_path), 1).get(KEY) for _ in range(3)]
    assert len(reads) == 1
    for value in found:
        np.testing.assert_array_equal(value, np.ones(5, np.float32))
        assert not value.flags.writeable
    files(tmp_path)[0].unlink()
    assert cache.get(KEY) is None


def test_a_file_cut_off_by_a_crash_is_computed_again(tmp_path):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.arange(1000.0))
    (file,) = files(tmp_path)
    for length in (0, 40, 4000):
        file.write_bytes(file.read_bytes()[:length])
        assert cache.get(KEY) is None
        np.testing.assert_array_equal(cache.tensor(KEY, lambda: torch.arange(1000.0)), np.arange(1000.0))


def test_the_longest_unused_go_first_and_nothing_else_is_touched(tmp_path):
    kilobyte, keys = np.zeros(256, np.float32), [digest(index) for index in range(11)]
    room = 10 * (kilobyte.nbytes + 128) / 2**30  # 128: numpy's header
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
    assert cache.get(keys[0]) is not None  # used now: it stays
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
    cache.put(KEY, np.ones(3))
    assert cache.get(KEY) is None
    assert files(tmp_path) == []
    with pytest.raises(ConfigError, match=r"cache\.gigabytes: -1"):
        Cache(str(tmp_path), -1)


def test_a_folder_that_cannot_be_written_costs_time_but_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = Cache(str(tmp_path / "file"), 1)
    for _ in range(2):
        assert cache.tensor(KEY, lambda: torch.ones(2)).tolist() == [1, 1]
    assert len(caplog.messages) == 1
    assert "cannot be written" in caplog.messages[0]


def test_a_disk_that_became_full_keeps_what_it_has(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path), 1)
    cache.put(KEY, np.ones(3))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.put(digest("other"), np.ones(3))
    assert cache.get(digest("other")) is None
    assert cache.get(KEY) is not None
    assert len(files(tmp_path)) == 1


def _write(folder: str, worker: int, found: "multiprocessing.Queue[bool]") -> None:
    cache = Cache(folder, 40 * 4200 / 2**30)  # so small that both throw out what the other just wrote
    good = True
    for round_ in range(200):
        key = digest("shared", round_ % 50)
        value = cache.tensor(key, lambda r=round_: torch.full((1000,), float(r % 50)))
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
