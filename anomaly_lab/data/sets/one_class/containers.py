"""Images and labels in the files that data sets are published in: idx (MNIST) and CIFAR-10's two forms."""

import gzip
import math
import pickle
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import numpy as np

from anomaly_lab.data.images import named
from anomaly_lab.errors import DataError

Digit = Literal[
    "digit_0",
    "digit_1",
    "digit_2",
    "digit_3",
    "digit_4",
    "digit_5",
    "digit_6",
    "digit_7",
    "digit_8",
    "digit_9",
]
CIFAR_SIDE = 32
CIFAR_BYTES = 3 * CIFAR_SIDE**2
MOST_BYTES = 2**30  # of an unpacked idx file, MNIST's is 47 MB


class Labelled(NamedTuple):
    """Images with the number of the class of each."""

    images: np.ndarray  # (N, H, W) or (N, H, W, 3) uint8
    classes: np.ndarray  # (N,) int64


def read_idx(file: Path) -> np.ndarray:
    """Return the uint8 array of an idx file, packed by gzip or not.

    Two zero bytes, the type (8: uint8), the number of axes, their lengths as big-endian 32 bit integers, the
    values (LeCun, Cortes, Burges, the MNIST database).

    Raises:
        DataError: it cannot be read, or is no such file.
    """
    with named(file):
        content = _unpacked(file)
        if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
            raise ValueError("is no idx file of bytes")
        shape = [int(side) for side in np.frombuffer(content, ">u4", content[3], 4)]
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
        if math.prod(shape) != len(values):
            raise ValueError(f"says {' x '.join(map(str, shape))} values, but has {len(values)}")
        return values.reshape(shape)


def _unpacked(file: Path) -> bytes:
    if file.suffix != ".gz":
        return file.read_bytes()
    with gzip.open(file) as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"unpacks to more than {MOST_BYTES} bytes")
    return content


def read_idx_pair(images: Path, labels: Path) -> Labelled:
    """Return the images of one idx file with the labels of another.

    Raises:
        DataError: as `read_idx`, or the two do not fit together.
    """
    values = read_idx(images)
    classes = read_idx(labels)
    if values.ndim != 3 or classes.shape != values.shape[:1]:
        shapes = f"{values.shape} values and {classes.shape} labels"
        raise DataError(f"{labels}: does not fit {images.name} ({shapes}); take both from one source")
    return Labelled(values, classes.astype(np.int64))


def read_cifar_binary(file: Path) -> Labelled:
    """Return a file of CIFAR-10's binary version: a byte for the class, then 32 x 32 of red, green and blue.

    Raises:
        DataError: it cannot be read, or has another length.
    """
    with named(file):
        content = np.fromfile(file, np.uint8)
        if not len(content) or len(content) % (1 + CIFAR_BYTES):
            raise ValueError(f"has {len(content)} bytes, no multiple of {1 + CIFAR_BYTES}")
        rows = content.reshape(-1, 1 + CIFAR_BYTES)
    return Labelled(_planes(rows[:, 1:]), rows[:, 0].astype(np.int64))


def read_cifar_pickle(file: Path) -> Labelled:
    """Return a batch of CIFAR-10's Python version, without running anything that it names.

    Raises:
        DataError: it cannot be read, names what such a batch does not, or has another form.
    """
    with named(file):
        with file.open("rb") as opened:
            content = _Plain(opened, encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, no batch of images")
        data = content.get(b"data")
        labels = content.get(b"labels")
        if not isinstance(data, _Array) or not isinstance(labels, list) or set(map(type, labels)) - {int}:
            raise ValueError("has no images (data) with the numbers of their classes (labels)")
        rows = data.rows(len(labels))
    return Labelled(_planes(rows), np.array(labels, np.int64))


def _planes(rows: np.ndarray) -> np.ndarray:
    """Return (N, 32, 32, 3) images of (N, 3072) values, a plane a colour."""
    return rows.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)


@final
class _Array:
    """Stands for a numpy array in a pickle, so that no function of numpy's is called by a file."""

    state: Any = (0, (), None, False, b"")  # version, shape, type, whether by columns, values

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rows(self, count: int) -> np.ndarray:
        """Return the (count, 3072) uint8 values. ValueError: it has others."""
        known = isinstance(self.state, tuple) and len(self.state) == 5
        _, shape, kind, by_columns, content = self.state if known else type(self).state
        fits = shape == (count, CIFAR_BYTES) and isinstance(kind, _Kind) and kind.name in (b"u1", "u1")
        if not fits or by_columns or not isinstance(content, bytes) or len(content) != count * CIFAR_BYTES:
            raise ValueError(f"has no {count} x {CIFAR_BYTES} bytes for its {count} labels")
        return np.frombuffer(content, np.uint8).reshape(shape)


@final
class _Kind:
    """Stands for a numpy type."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Take no byte order: there is none of single bytes."""


def _rebuilt(*_: Any) -> _Array:
    return _Array()


def _encoded(text: Any, _: Any) -> bytes:
    return str(text).encode("latin1")


@final
class _Plain(pickle.Unpickler):
    """Reads plain values and what stands for arrays; a file can call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name. UnpicklingError: such a batch does not have it."""
        place = module.replace("numpy._core", "numpy.core")
        known = {
            "numpy.core.multiarray _reconstruct": _rebuilt,
            "numpy ndarray": _Array,
            "numpy dtype": _Kind,
            "_codecs encode": _encoded,
        }
        if f"{place} {name}" not in known:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no batch of images does")
        return known[f"{place} {name}"]
