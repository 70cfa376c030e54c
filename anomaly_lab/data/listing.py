"""Listing of folders: images, masks in folders of their own or beside them, and a draw of the test set."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.left_out import SUFFIXES, is_no_file, listed
from anomaly_lab.data.names import check_plain, printable
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.types import ImageRecord


def folder(*parts: str | Path) -> Path:
    """Return the folder, or raise DataError naming the first missing part and the folders beside it."""
    path = Path(parts[0]).expanduser()
    check_plain(path.joinpath(*parts[1:]))
    for part in ("", *parts[1:]):
        parent, path = path, path / part
        if not path.is_dir():
            there = [printable(p.name) for p in folders(parent)] if part else []
            hint = (
                f"; there are: {', '.join(there)}" if there else "; give data.root=FOLDER" if not part else ""
            )
            raise DataError(f"{path}: no such folder{hint}")
    return path


def images(path: Path) -> list[Path]:
    """List the image files right inside the folder, by name; none if it does not exist.

    Hidden files are none, nor is what is no file, as a pipe or a device. What else is left out is known to
    whoever asks by `left_out.watched`.

    Raises:
        DataError: a name cannot be written into a report.
    """
    listed(path)
    found = (p for p in path.glob("[!.]*") if p.suffix.lower() in SUFFIXES and not is_no_file(p))
    files = sorted(found, key=lambda p: p.name)
    for file in files:
        check_plain(file)
    return files


def folders(path: Path) -> list[Path]:
    """List the folders right inside a folder, by name, without hidden ones; none if it does not exist."""
    return sorted(p for p in path.glob("[!.]*") if p.is_dir())


@final
class ListingError(DataError):
    """Files do not fit together; it carries all such problems, and the records, for the check."""

    def __init__(self, problems: list[str], records: list[ImageRecord]) -> None:
        more = (
            f" ({len(problems) - 1} more: python -m anomaly_lab check lists all)" if len(problems) > 1 else ""
        )
        super().__init__(problems[0] + more)
        self.problems = problems
        self.records = records


def normals(path: Path) -> list[ImageRecord]:
    """List the images right inside the folder as normal ones."""
    return [ImageRecord(file, None, label=False, defect="good") for file in images(path)]


def pair(files: Sequence[Path], masks: Path, defect: str, problems: list[str]) -> list[ImageRecord]:
    """Pair anomalous images with a folder's masks by stem (``STEM_mask`` or ``STEM``).

    Misfits go to ``problems``.
    """
    stems = Counter(file.stem for file in files)
    by_stem = dict[str, Path]()
    for mask in images(masks):
        stem = mask.stem.removesuffix("_mask")
        if by_stem.setdefault(stem, mask) is not mask or stems[stem] != 1:
            found = (
                f"of {stems[stem]} images named {stem}"
                if stems[stem] != 1
                else f"beside {by_stem[stem].name}"
            )
            problems.append(
                f"{mask}: is a mask {found}; one image takes one mask, so add, rename or remove a file"
            )
    return [ImageRecord(file, by_stem.get(file.stem), label=True, defect=defect) for file in files]


def categories(root: str, known: Sequence[str]) -> list[str]:
    """Return the names of the folders in ``root`` that are categories: known ones, else as MVTec AD has them.

    Raises:
        DataError: there is none.
    """
    found = [
        path.name
        for path in folders(folder(root))
        if path.name in known or (not known and (path / "train" / "good").is_dir())
    ]
    if not found:
        raise DataError(f"{root}: has no category of this data set; give data.root=FOLDER")
    return found


def mvtec_tree(category: Path, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
    """List train/good, validation/good, or test/* with ground_truth/*, as MVTec AD lays them out."""
    if split != "test":
        return normals(folder(category, split, "good") if split == "train" else category / split / "good")
    records = normals(folder(category, "test") / "good")
    problems = list[str]()
    for defect in (p for p in folders(category / "test") if p.name != "good"):
        records += pair(images(defect), category / "ground_truth" / defect.name, defect.name, problems)
    if problems:
        raise ListingError(problems, records)
    return records


def beside(files: Sequence[Path], ending: str, problems: list[str]) -> dict[Path, Path | None]:
    """Pair each image with the mask STEM + ``ending`` in the same folder.

    Every file of that ending is a mask. A mask that fits not one image goes to ``problems``; an image without
    a mask has None.
    """
    masks = {
        file.with_name(file.name.removesuffix(ending)): file for file in files if file.name.endswith(ending)
    }
    found = [file for file in files if not file.name.endswith(ending)]
    stems = Counter(file.with_suffix("") for file in found)
    for stem, mask in masks.items():
        if stems[stem] != 1:
            way_out = "one image takes one mask, so add, rename or remove a file"
            problems.append(f"{mask}: is a mask of {stems[stem]} images named {stem.name}; {way_out}")
    return {file: masks.get(file.with_suffix("")) for file in found}


def drawn(names: Iterable[str], test_share: float) -> set[str]:
    """Return the share of the names, at least one, whose SHA-256 is smallest.

    They are the same for every seed and machine.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    if not 0 < test_share < 1:
        raise ConfigError(
            f"data.test_share: {test_share} leaves no good images for testing; give a share in (0, 1)"
        )
    return set(ranked[: max(1, round(test_share * len(ranked)))])
