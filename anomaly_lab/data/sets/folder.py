"""Any folders of good and defective images; masks are optional."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, folder, folders, images, pair
from anomaly_lab.data.names import printable
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Folder(AnomalyDataModule):
    """Folders, named relative to ``root``; only the images right inside each count.

    Attributes:
        normal_train: good images, for training.
        abnormal: defective images; each folder is a defect. If empty, nothing that needs both labels can be
            measured.
        normal_test: good images for testing; if empty, ``test_share`` of ``normal_train`` is kept for it.
        test_share: takes the images with the smallest hashes of folder and file name: one image more moves at
            most one other, and a seed none.
        mask_folder: holds the masks, or for each folder of ``abnormal`` one of the same path or name that
            does.
    """

    normal_train: Sequence[str]
    abnormal: Sequence[str]
    normal_test: Sequence[str]
    test_share: float
    mask_folder: str | None

    @classmethod
    def categories(cls, root: str) -> list[str]:
        """Raise ConfigError: one is chosen by naming it."""
        raise ConfigError(f"data.category=all: data=folder takes {root} for one category; give it a name")

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the good images for training, or those for testing and the defective ones.

        Raises:
            DataError: a folder is missing or has no images, or an image is listed twice.
        """
        good = self._images(self.normal_train)
        spare = self._images(self.normal_test)
        bad = {name: self._images([name]) for name in self.abnormal}
        first: dict[Path, Path] = {}
        for file in (*good, *spare, *(file for files in bad.values() for file in files)):
            if (other := first.setdefault(file.resolve(), file)) is not file:
                lists = "data.normal_train, normal_test and abnormal"
                raise DataError(f"{file}: is listed twice in {lists} (as {other}); keep one of them")
        test = set(spare or self._drawn(good))
        if split == "test":
            return self._paired(bad, [_good(file) for file in (*good, *spare) if file in test])
        return [_good(file) for file in good if file not in test] if split == "train" else []

    def _images(self, names: Sequence[str]) -> list[Path]:
        files: list[Path] = []
        for name in names:
            path = folder(self.root, *Path(name).parts)
            found = images(path)
            if not found:
                inner = ", ".join(printable(p.name) for p in folders(path))
                hint = (
                    f"list its folders instead: {inner}" if inner else "add some or take it out of the list"
                )
                raise DataError(f"{path}: has no images; {hint}")
            files += found
        return files

    def _drawn(self, good: list[Path]) -> list[Path]:
        if not 0 < self.test_share < 1:
            way_out = "give a share in (0, 1), or list data.normal_test"
            raise ConfigError(
                f"data.test_share: {self.test_share} leaves no good images for testing; {way_out}"
            )
        ranked = sorted(good, key=lambda file: hashlib.sha256("/".join(file.parts[-2:]).encode()).digest())
        return ranked[: max(1, round(self.test_share * len(good)))]

    def _paired(self, bad: dict[str, list[Path]], good: list[ImageRecord]) -> list[ImageRecord]:
        """Return the good records, then the defective ones with their masks."""
        if self.mask_folder is None:
            return good + [
                ImageRecord(file, None, label=True, defect=name)
                for name, files in bad.items()
                for file in files
            ]
        top = folder(self.root, *Path(self.mask_folder).parts)
        problems = list[str]()
        inner = {
            name: next((p for p in (top / name, top / Path(name).name) if p.is_dir()), None) for name in bad
        }
        if any(inner.values()):
            pairs = [pair(files, inner[name] or top / name, name, problems) for name, files in bad.items()]
            records = [record for paired in pairs for record in paired]
        else:
            defects = {file: name for name, files in bad.items() for file in files}
            records = [r._replace(defect=defects[r.image]) for r in pair([*defects], top, "", problems)]
        if bad and not problems and not any(record.mask for record in records):
            problems.append(
                f"{top}: has no masks of the images in data.abnormal; correct data.mask_folder or set null"
            )
        if problems:
            raise ListingError(problems, good + records)
        return good + records


def _good(file: Path) -> ImageRecord:
    return ImageRecord(file, None, label=False, defect="good")
