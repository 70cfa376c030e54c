"""KolektorSDD and KolektorSDD2.

KolektorSDD: Tabernik et al., J. Intell. Manuf. 31, 2020; KolektorSDD2: Bozic et al., Comput. Ind. 129, 2021.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from PIL import Image

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, beside, drawn, folder, folders, images
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

log = logging.getLogger(__name__)


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Kolektor(AnomalyDataModule):
    """Surfaces of commutators (KolektorSDD) and of another part (KolektorSDD2).

    Each image has a mask beside it and is anomalous where that has any pixel; all masks are read for that,
    once per split.

    * ROOT/KolektorSDD/kos01 to kos50/Part0.jpg, Part0_label.bmp: up to eight surfaces of one part; 347 good,
      52 defective. Every part has a defect, so its good surfaces stand on one side and all defective ones are
      for testing.
    * ROOT/KolektorSDD2/{train, test}/10301.png, 10301_GT.png: 2085 and 894 good, 246 and 110 defective. Its
      defective training images are for ``train_anomalies`` alone.

    Attributes:
        test_share: of KolektorSDD's parts give their good surfaces to the test, drawn by a hash of the
            folder's name, not by seed. KolektorSDD2 has a published split and does not use it.
    """

    category: Literal["KolektorSDD", "KolektorSDD2"]
    test_share: float

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List good images for training, or those for testing and the defective ones."""
        if split == "validation":
            return []
        top = folder(self.root, self.category)
        if self.category == "KolektorSDD2":
            listed = _second(folder(top, split))
            test = {"test"}
        else:
            files = [file for part in folders(top) for file in images(part)]
            listed = _labelled(files, "_label.bmp")
            test = drawn({file.parent.name for file in files}, self.test_share)
        good = [r for r in listed if not r.label and (r.image.parent.name in test) == (split == "test")]
        bad = [r for r in listed if r.label]
        if split == "train" and self.category == "KolektorSDD2" and not self.train_anomalies:
            log.info("%s: %d defective training images are left out", top / split, len(bad))
        return good + bad if split == "test" else good

    def published_anomalies(self) -> list[ImageRecord]:
        """List KolektorSDD2's defective training images; KolektorSDD's folds are not used."""
        if self.category == "KolektorSDD":
            return []
        return [
            record for record in _second(folder(folder(self.root, self.category), "train")) if record.label
        ]


def _second(place: Path) -> list[ImageRecord]:
    """List a folder of KolektorSDD2; its archive has a stray copy of an image and mask, 10301 (copy).png."""
    return _labelled([file for file in images(place) if "(copy)" not in file.name], "_GT.png")


def _labelled(files: list[Path], ending: str) -> list[ImageRecord]:
    problems = list[str]()
    pairs = beside(files, ending, problems)
    masks = [mask for mask in pairs.values() if mask]
    problems += [
        f"{i}: has no mask {i.stem}{ending} beside it; add it or remove it" for i, m in pairs.items() if not m
    ]
    with ThreadPoolExecutor() as pool:
        marked = {
            mask for mask, is_marked in zip(masks, pool.map(_any_pixel, masks), strict=True) if is_marked
        }
    records = [
        ImageRecord(image, mask, label=True, defect="defective")
        if mask in marked
        else ImageRecord(image, None, label=False, defect="good")
        for image, mask in pairs.items()
    ]
    if problems:
        raise ListingError(problems, records)
    return records


def _any_pixel(mask: Path) -> bool:
    try:
        with Image.open(mask) as image:
            return image.convert("L").getbbox() is not None
    except Exception as error:  # PIL's plugins raise much besides OSError
        raise DataError(
            f"{mask}: cannot be read as a mask; replace the file or take its image out too"
        ) from error
