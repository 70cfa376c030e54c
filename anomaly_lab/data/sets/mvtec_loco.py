"""MVTec LOCO AD: Bergmann, Batzner, Fauser, Sattlegger, Steger, IJCV 130, 2022.

doi 10.1007/s11263-022-01578-9
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.left_out import SUFFIXES
from anomaly_lab.data.listing import ListingError, folder, images, normals
from anomaly_lab.types import ImageRecord

DEFECTS = ("logical_anomalies", "structural_anomalies")


@final
@dataclass(kw_only=True, eq=False, repr=False)
class MVTecLOCO(AnomalyDataModule):
    """ROOT/CATEGORY/{train, validation, test}/good, test/DEFECT/STEM.png, and masks in ground_truth.

    An image's masks, ground_truth/DEFECT/STEM/{000.png, 001.png}, one for each defect, are joined: all pixel
    metrics are of their union, and AUPRO's regions are the union's components. The data set's own metric,
    sPRO, keeps the masks apart and has each found in full once a given area of it is (saturation thresholds
    in defects_config.json); it is not computed, and no AUPRO compares with it.
    """

    category: Literal["breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the category; a record's mask is the folder of its masks."""
        top = folder(self.root, self.category)
        problems = list[str]()
        if split != "test":
            return normals(folder(top, split, "good"))
        records = normals(folder(top, "test", "good"))
        for defect in DEFECTS:
            files = images(folder(top, "test", defect))
            records += _with_folders(files, folder(top, "ground_truth", defect), defect, problems)
        if problems:
            raise ListingError(problems, records)
        return records


def _with_folders(files: list[Path], masks: Path, defect: str, problems: list[str]) -> list[ImageRecord]:
    """Pair images with the folders of masks named as their stems; misfits go to ``problems``."""
    stems = [file.stem for file in files]
    for entry in sorted(masks.glob("[!.]*")):
        if not entry.is_dir() and entry.suffix.lower() not in SUFFIXES:
            continue  # as Thumbs.db
        if not entry.is_dir():
            problems.append(
                f"{entry}: lies beside the folders of masks; move it to {masks}/STEM or take it out"
            )
        elif stems.count(entry.name) != 1:
            found = f"of {stems.count(entry.name)} images named {entry.name}"
            problems.append(
                f"{entry}: holds the masks {found}; one image takes one folder, so add, rename or remove it"
            )
        elif not images(entry):
            problems.append(
                f"{entry}: holds no mask; put the image's masks there, or remove the folder and the image"
            )
    pairs = ((file, masks / file.stem) for file in files)
    return [ImageRecord(f, mask if images(mask) else None, label=True, defect=defect) for f, mask in pairs]
