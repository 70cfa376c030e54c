"""Listing of folders, and the layout that MVTec AD made common."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

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
    return sorted(p for p in path.glob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def pair(files: Iterable[Path], masks: Path, defect: str) -> list[ImageRecord]:
    """Pair anomalous images with the masks of a folder by stem (``STEM_mask`` or ``STEM``).

    Raises:
        DataError: a mask has no image, or two masks claim one image.
    """
    by_stem: dict[str, Path] = {}
    for mask in images(masks):
        if other := by_stem.setdefault(mask.stem.removesuffix("_mask"), mask) is not mask:
            raise DataError(f"{mask}: {other} claims the same image; keep one of them")
    records = [ImageRecord(file, by_stem.pop(file.stem, None), True, defect) for file in files]
    if by_stem:
        raise DataError(f"{min(by_stem.values())}: this mask has no image; add the image or remove the mask")
    return records


def mvtec_tree(category: Path, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
    """List train/good, validation/good, or test/* with ground_truth/*, as MVTec AD lays them out."""
    if split != "test":
        return [ImageRecord(file, None, False, "good") for file in images(category / split / "good")]
    records = [ImageRecord(file, None, False, "good") for file in images(category / "test" / "good")]
    for defect in sorted(p for p in (category / "test").glob("*") if p.is_dir() and p.name != "good"):
        records += pair(images(defect), category / "ground_truth" / defect.name, defect.name)
    return records
