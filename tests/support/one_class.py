"""Tiny data sets in the files that MNIST, CIFAR-10 and COIL-100 are published in."""

import gzip
import struct
from pathlib import Path

import numpy as np

from tests.support.trees import normal_image, write_png


def idx(values: np.ndarray) -> bytes:
    """Return uint8 values as an idx file."""
    return struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


def stack(images: np.ndarray) -> np.ndarray:
    """Return (N, 32, 32, 3) images as CIFAR-10's rows of 3072 values, a plane a colour."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def cifar_binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return a file of the binary version."""
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, stack(images), strict=True))


def opcodes(key: bytes, content: bytes = b"", count: int = 5, *, state: bool = True) -> bytes:
    """Return a Python 2 pickle without its last byte: ``key`` with (count, 3072) bytes, count labels of 0."""
    begin = b"\x80\x02}q\x01(" + text(key)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85" + text(b"b") + b"\x87R"
    )
    kind = b"cnumpy\ndtype\nq\x04" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    kind += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"M" + struct.pack("<H", count) + b"M" + struct.pack("<H", 3072) + b"\x86"
    values = b"T" + struct.pack("<I", len(content)) + content
    given = b"(K\x01" + shape + kind + b"\x89" + values + b"tb" if state else b""
    labels = text(b"labels") + b"](" + b"K\x00" * count + b"e"
    return begin + array + given + labels + b"u"


def text(value: bytes) -> bytes:
    """Return the opcode of a short text of Python 2."""
    return b"U" + bytes([len(value)]) + value


def cifar_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return a batch of the Python version, as Python 2 wrote it."""
    zeros = b"](" + b"K\x00" * len(labels) + b"e"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return opcodes(b"data", stack(images).tobytes(), len(labels)).replace(zeros, listed) + b"."


def drawn(count: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (count, *shape) uint8 images and their classes, 0 to 9 in turn from ``seed`` on."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    return images, (np.arange(count) + seed) % 10


def mnist_files(root: Path, train: int = 30, test: int = 20, ending: str = ".gz") -> Path:
    """Write the four files, packed where the ending is .gz; return ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    for stem, count, seed in (("train", train, 1), ("t10k", test, 2)):
        images, classes = drawn(count, (28, 28), seed)
        for name, values in (("images-idx3", images), ("labels-idx1", classes.astype(np.uint8))):
            content = gzip.compress(idx(values)) if ending else idx(values)
            (root / f"{stem}-{name}-ubyte{ending}").write_bytes(content)
    return root


def cifar_files(root: Path, form: str) -> Path:
    """Write five batches of 10 images and one of 20, ``bin`` or ``py``; return ``root``."""
    top = root / f"cifar-10-batches-{form}"
    top.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        batch = drawn(20 if name == "test_batch" else 10, (32, 32, 3), seed)
        content = cifar_binary(*batch) if form == "bin" else cifar_pickle(*batch)
        (top / (name + (".bin" if form == "bin" else ""))).write_bytes(content)
    return root


def coil_tree(root: Path, objects: int = 3, views: int = 8) -> Path:
    """Write ``root/coil-100/obj1__0.png`` and so on, from object 1, 5 degrees apart; return ``root``."""
    for number in range(1, objects + 1):
        for view in range(views):
            write_png(root / f"coil-100/obj{number}__{5 * view}.png", normal_image((16, 16), number, view))
    return root
