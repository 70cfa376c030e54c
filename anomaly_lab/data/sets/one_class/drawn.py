"""COIL-100 and scikit-learn's digits: one class is normal; no test set is published, so one is drawn."""

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final, get_args, get_type_hints

import numpy as np
import sklearn.datasets

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, images
from anomaly_lab.data.sets.one_class.containers import Digit, Labelled
from anomaly_lab.data.sets.one_class.unpacking import Container, unpacked
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.types import SAME_RUN, ImageRecord

VIEW = re.compile(r"obj([0-9]+)__[0-9]+")  # of a name in COIL-100: the object, then the angle


@dataclass(kw_only=True, eq=False, repr=False)
class DrawnSplit(AnomalyDataModule, ABC):
    """A classification data set without a published split, of which one class is normal.

    A share of each class is drawn for testing. Training is on what is left of the normal class, the test on
    what was drawn of all of them; what is left of the others is not used.

    Attributes:
        test_share: of the images of each class.
        split_seed: of the draw. It does not follow ``seed``, so that all seeds are of one test set.
    """

    test_share: float
    split_seed: int

    @abstractmethod
    def by_class(self) -> dict[str, list[Path]]:
        """Return the images of each class, in a fixed order. DataError: they are not there."""

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the rest of the normal class; or what was drawn of all classes, the normal one first."""
        if not 0 < self.test_share < 1:
            raise ConfigError(f"data.test_share: {self.test_share}; give a share in (0, 1)")
        files = self.by_class()
        if self.category not in files:
            raise DataError(f"{self.root}: has no {self.category}; there are {', '.join(files)}")
        drawn = {name: set(self._drawn(of_class)) for name, of_class in files.items()}
        if split == "validation":
            return []
        good = [f for f in files[self.category] if (f in drawn[self.category]) == (split == "test")]
        listed = [ImageRecord(file, None, label=False, defect="good") for file in good]
        if split == "train":
            return listed
        return listed + [
            ImageRecord(file, None, label=True, defect=name)
            for name, of_class in files.items()
            for file in of_class
            if name != self.category and file in drawn[name]
        ]

    def _drawn(self, files: list[Path]) -> list[Path]:
        """Return a share of the files, at least one, by a hash of the seed of the draw and their names."""

        def rank(file: Path) -> bytes:
            return hashlib.sha256(f"{self.split_seed} {file.name}".encode()).digest()

        return sorted(files, key=rank)[: max(1, round(self.test_share * len(files)))]


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Coil100(DrawnSplit):
    """Views of 100 objects on a turntable, 72 of each, 128 x 128: ROOT/coil-100/obj1__0.png, obj1__5.png, ...

    ROOT may also be the folder of the images itself.
    """

    @classmethod
    def categories(cls, root: str) -> list[str]:
        """Return the objects that are there, by their numbers."""
        return [*_objects(root)]

    def by_class(self) -> dict[str, list[Path]]:
        """Return the views of each object."""
        return _objects(self.root)


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Digits(DrawnSplit):
    """scikit-learn's digits: 1,797 of 8 x 8, which come with it. A smoke test, no evidence for a method.

    Attributes:
        root: where they are written, ROOT/HASH/CLASS/NUMBER.png.
    """

    root: Annotated[str, SAME_RUN]
    category: Digit

    @classmethod
    def categories(cls, root: str) -> list[str]:  # noqa: ARG003 - they need not be there
        """Return all ten."""
        return list(get_args(get_type_hints(cls)["category"]))

    def by_class(self) -> dict[str, list[Path]]:
        """Return the digits, after writing them if they are not there."""
        names = self.categories(self.root)
        shipped = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
        container = Container("digits", [shipped], names, _digits)
        folders = unpacked(self.root, container, names)
        return {name: images(place) for name, place in zip(names, folders, strict=True)}


def _objects(root: str) -> dict[str, list[Path]]:
    top = folder(root)
    inner = top / "coil-100"
    found: dict[int, list[Path]] = {}
    for file in images(inner if inner.is_dir() else top):
        if named := VIEW.fullmatch(file.stem):
            found.setdefault(int(named[1]), []).append(file)
    if not found:
        raise DataError(
            f"{top}: has no images obj1__0.png, ..., nor a folder coil-100; give data.root=FOLDER"
        )
    return {f"obj{number}": found[number] for number in sorted(found)}


def _digits() -> Labelled:
    loaded = sklearn.datasets.load_digits()
    return Labelled(np.rint(loaded.images * (255 / 16)).astype(np.uint8), loaded.target.astype(np.int64))
