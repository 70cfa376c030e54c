"""Listing of folders, and the layout that MVTec AD made common."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def folder(*parts: str | Path) -> Path:
    """Return the folder, or raise DataError naming the first missing part and the folders beside it."""
    path = Path(parts[0]).expanduser()
    for part in ("", *parts[1:]):
        parent, path = path, path / part
        if not path.is_dir():
            there = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() and part else []
            hint = f"; there are: {', '.join(there)}" if there else "; give data.root=FOLDER" if not part else ""
            raise DataError(f"{path}: no such folder{hint}")
    return path


def images(path: Path) -> list[Path]:
    """List the image files right inside the folder, by name; none if it does not exist."""
    found = (p for p in path.glob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=lambda p: p.name)


@final
class ListingError(DataError):
    """Files do not fit together; it carries all such problems, and the records, for the check."""

    def __init__(self, problems: list[str], records: list[ImageRecord]) -> None:
        more = f" ({len(problems) - 1} more: python -m anomaly_lab.check lists all)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems, self.records = problems, records


def normals(path: Path) -> list[ImageRecord]:
    """List the images right inside the folder as normal ones."""
    return [ImageRecord(file, None, label=False, defect="good") for file in images(path)]


def pair(files: Sequence[Path], masks: Path, defect: str, problems: list[str]) -> list[ImageRecord]:
    """Pair anomalous images with a folder's masks by stem (``STEM_mask`` or ``STEM``); misfits go to ``problems``."""
    stems, by_stem = Counter(file.stem for file in files), dict[str, Path]()
    for mask in images(masks):
        stem = mask.stem.removesuffix("_mask")
        if by_stem.setdefault(stem, mask) is not mask or stems[stem] != 1:
            found = f"of {stems[stem]} images named {stem}" if stems[stem] != 1 else f"beside {by_stem[stem].name}"
            problems.append(f"{mask}: is a mask {found}; one image takes one mask, so add, rename or remove a file")
    return [ImageRecord(file, by_stem.get(file.stem), label=True, defect=defect) for file in files]


def mvtec_tree(category: Path, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
    """List train/good, validation/good, or test/* with ground_truth/*, as MVTec AD lays them out."""
    if split != "test":
        return normals(folder(category, split, "good") if split == "train" else category / split / "good")
    records, problems = normals(folder(category, "test") / "good"), list[str]()
    for defect in sorted(p for p in (category / "test").iterdir() if p.is_dir() and p.name != "good"):
        records += pair(images(defect), category / "ground_truth" / defect.name, defect.name, problems)
    if problems:
        raise ListingError(problems, records)
    return records
