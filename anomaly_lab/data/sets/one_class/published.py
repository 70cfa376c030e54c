"""MNIST, Fashion-MNIST and CIFAR-10: one class is normal, and the test is the published test set."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final, get_args, get_type_hints

import numpy as np

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, images, normals
from anomaly_lab.data.sets.one_class.containers import (
    Digit,
    Labelled,
    read_cifar_binary,
    read_cifar_pickle,
    read_idx_pair,
)
from anomaly_lab.data.sets.one_class.unpacking import Container, unpacked
from anomaly_lab.errors import DataError
from anomaly_lab.types import SAME_RUN, ImageRecord

Part = Literal["train", "test"]


@dataclass(kw_only=True, eq=False, repr=False)
class PublishedSplit(AnomalyDataModule, ABC):
    """A classification data set in its published files, of which one class is normal.

    Training is on that class of the training part, the test on all classes of the test part; what is of
    another class is anomalous, and its defect is the name of its class. There are no masks.

    Attributes:
        written: the images that are wanted go to WRITTEN/SET/PART-HASH/CLASS/NUMBER.png, once.
    """

    written: Annotated[str, SAME_RUN]

    @classmethod
    def classes(cls) -> list[str]:
        """Return the names of the classes, by their numbers in the files."""
        return list(get_args(get_type_hints(cls)["category"]))

    @classmethod
    def categories(cls, root: str) -> list[str]:  # noqa: ARG003 - every root has all of them
        """Return all classes."""
        return cls.classes()

    @abstractmethod
    def container(self, part: Part) -> Container:
        """Return where a part is published. DataError: a file is missing."""

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the normal class for training; or all classes for testing, the normal one first."""
        if split == "validation":
            return []
        if split == "train":
            return normals(unpacked(self.written, self.container("train"), [self.category])[0])
        others = [name for name in self.classes() if name != self.category]
        first, *rest = unpacked(self.written, self.container("test"), [self.category, *others])
        anomalous = [
            ImageRecord(file, None, label=True, defect=name)
            for name, place in zip(others, rest, strict=True)
            for file in images(place)
        ]
        return normals(first) + anomalous


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Mnist(PublishedSplit):
    """Handwritten digits of 28 x 28.

    ROOT/{train, t10k}-{images-idx3, labels-idx1}-ubyte, with .gz or without.
    """

    category: Digit

    def container(self, part: Part) -> Container:
        """Return two idx files."""
        return _idx(self.root, "mnist", part, self.classes())


@final
@dataclass(kw_only=True, eq=False, repr=False)
class FashionMnist(PublishedSplit):
    """Clothes of 28 x 28, in files called as MNIST's."""

    category: Literal[
        "t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"
    ]

    def container(self, part: Part) -> Container:
        """Return two idx files."""
        return _idx(self.root, "fashion_mnist", part, self.classes())


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Cifar10(PublishedSplit):
    """Photographs of 32 x 32: ROOT/cifar-10-batches-bin/data_batch_1.bin, or ROOT/cifar-10-batches-py."""

    category: Literal[
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
    ]

    def container(self, part: Part) -> Container:
        """Return the batches of the binary version, else of the Python version."""
        names = [f"data_batch_{number}" for number in range(1, 6)] if part == "train" else ["test_batch"]
        top = folder(self.root)
        forms = {"bin": (".bin", read_cifar_binary), "py": ("", read_cifar_pickle)}
        there = [form for form in forms if (top / f"cifar-10-batches-{form}").is_dir()]
        if not there:
            ways = "unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz there"
            raise DataError(f"{top}: has no folder cifar-10-batches-bin or cifar-10-batches-py; {ways}")
        ending, read = forms[there[0]]
        files = [_found(top / f"cifar-10-batches-{there[0]}", [name + ending]) for name in names]

        def all_of_them() -> Labelled:
            batches = [read(file) for file in files]
            return Labelled(*(np.concatenate(values) for values in zip(*batches, strict=True)))

        return Container(f"cifar10/{part}", files, self.classes(), all_of_them)


def _idx(root: str, name: str, part: Part, classes: Sequence[str]) -> Container:
    stem = "train" if part == "train" else "t10k"
    top = folder(root)
    pixels, labels = (
        _found(top, [f"{stem}-{kind}-ubyte.gz", f"{stem}-{kind}-ubyte"])
        for kind in ("images-idx3", "labels-idx1")
    )
    return Container(f"{name}/{part}", [pixels, labels], classes, lambda: read_idx_pair(pixels, labels))


def _found(top: Path, names: Sequence[str]) -> Path:
    """Return the first of these files that is there. DataError: none is."""
    for name in names:
        if (top / name).is_file():
            return top / name
    raise DataError(
        f"{top}: has no file {' or '.join(names)}; give data.root=FOLDER with the published files"
    )
