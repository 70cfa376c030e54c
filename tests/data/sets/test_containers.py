"""The published forms of MNIST and CIFAR-10, written here byte by byte, and what is wrong with some."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from anomaly_lab.data.sets.one_class.containers import (
    read_cifar_binary,
    read_cifar_pickle,
    read_idx,
    read_idx_pair,
)
from anomaly_lab.errors import DataError
from tests.support.one_class import cifar_binary, cifar_pickle, idx, opcodes, stack

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
LABELS = np.array([3, 0, 3, 9, 1])
COLOURS = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("packed", [True, False])
def test_an_idx_file_gives_what_was_written(tmp_path, packed):
    ending = ".gz" if packed else ""
    pixels, labels = (tmp_path / f"{name}{ending}" for name in ("pixels", "labels"))
    for file, values in ((pixels, PIXELS), (labels, LABELS.astype(np.uint8))):
        file.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    found = read_idx_pair(pixels, labels)
    np.testing.assert_array_equal(found.images, PIXELS)
    assert found.classes.tolist() == LABELS.tolist()


WRONG_IDX = {
    "short": (idx(PIXELS)[:-1], "says 5 x 4 x 3 values, but has 59"),
    "long": (idx(PIXELS) + b"\0", "says 5 x 4 x 3 values, but has 61"),
    "huge": (struct.pack(">I3I", 0x803, 2**31, 2**31, 2**31), "values, but has 0"),
    "floats": (b"\0\0\x0d\1" + bytes(8), "is no idx file of bytes"),
    "header": (b"\0\0\x08\3\0\0", "is no idx file of bytes"),
    "nothing": (b"", "is no idx file of bytes"),
}


@pytest.mark.parametrize("kind", WRONG_IDX)
def test_what_is_wrong_with_an_idx_file_is_one_line_that_names_it(tmp_path, kind):
    content, said = WRONG_IDX[kind]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=f"file: .*{said}; replace the file"):
        read_idx(tmp_path / "file")


def test_a_packed_file_that_is_cut_off_or_expands_without_end_is_named(tmp_path, monkeypatch):
    file = tmp_path / "images.gz"
    file.write_bytes(gzip.compress(idx(PIXELS))[:-9])
    with pytest.raises(DataError, match=r"images\.gz: .*end"):
        read_idx(file)
    monkeypatch.setattr("anomaly_lab.data.sets.one_class.containers.MOST_BYTES", 1000)
    file.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(DataError, match=r"images\.gz: unpacks to more than 1000 bytes"):
        read_idx(file)


def test_labels_of_other_images_are_named(tmp_path):
    (tmp_path / "pixels").write_bytes(idx(PIXELS))
    (tmp_path / "labels").write_bytes(idx(LABELS[:4].astype(np.uint8)))
    with pytest.raises(
        DataError, match=r"labels: does not fit pixels \(\(5, 4, 3\) values and \(4,\) labels\)"
    ):
        read_idx_pair(tmp_path / "pixels", tmp_path / "labels")


def test_a_binary_batch_is_a_class_and_three_planes_each(tmp_path):
    file = tmp_path / "data_batch_1.bin"
    file.write_bytes(cifar_binary(COLOURS, LABELS))
    found = read_cifar_binary(file)
    np.testing.assert_array_equal(found.images, COLOURS)
    assert found.classes.tolist() == LABELS.tolist()
    file.write_bytes(cifar_binary(COLOURS, LABELS)[:-1])
    with pytest.raises(DataError, match="has 15364 bytes, no multiple of 3073"):
        read_cifar_binary(file)


def protocols() -> dict[str, bytes]:
    """The published form, of Python 2, and what today's Python and numpy make of the same batch."""
    batch = {b"data": stack(COLOURS), b"labels": LABELS.tolist(), b"batch_label": b"batch 1 of 5"}
    return {"published": cifar_pickle(COLOURS, LABELS)} | {
        f"protocol {number}": pickle.dumps(batch, protocol=number) for number in (2, 4)
    }


@pytest.mark.parametrize("protocol", protocols())
def test_a_batch_of_the_python_version_gives_what_the_binary_one_does(tmp_path, protocol):
    content = protocols()[protocol]
    assert pickle.loads(content, encoding="bytes")[b"data"].shape == (5, 3072)  # it is a pickle of an array
    (tmp_path / "data_batch_1").write_bytes(content)
    found = read_cifar_pickle(tmp_path / "data_batch_1")
    np.testing.assert_array_equal(found.images, COLOURS)
    assert found.classes.tolist() == LABELS.tolist()


class Harm:
    """What a stranger's pickle could do."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


WRONG = {
    "code": (
        pickle.dumps({b"data": Harm(), b"labels": []}),
        r"names \w+\.mkdir, which no batch of images does",
    ),
    "another": (pickle.dumps([1, 2]), "holds a list, no batch of images"),
    "labels": (pickle.dumps({b"data": stack(COLOURS)}), "has no images"),
    "fine labels": (pickle.dumps({b"data": stack(COLOURS), b"labels": ["a"] * 5}), "has no images"),
    "floats": (
        pickle.dumps({b"data": stack(COLOURS).astype(float), b"labels": [0] * 5}),
        "has no 5 x 3072 bytes for its 5 labels",
    ),
    "fewer": (pickle.dumps({b"data": stack(COLOURS)[:4], b"labels": [0] * 5}), "has no 5 x 3072 bytes"),
    "by columns": (
        pickle.dumps({b"data": np.asfortranarray(stack(COLOURS)), b"labels": [0] * 5}, protocol=2),
        "has no 5 x 3072 bytes",
    ),
    "unset": (opcodes(b"data", state=False) + b".", "has no 5 x 3072 bytes"),
    "cut off": (cifar_pickle(COLOURS, LABELS)[:-30], "replace the file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_nothing_that_a_batch_names_is_run_and_what_is_wrong_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content, said = WRONG[kind]
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match=f"batch: .*{said}"):
        read_cifar_pickle(tmp_path / "batch")
    assert not (tmp_path / "harmed").exists()
