"""BTAD, three products of beanTech: Mishra, Verk, Fornasier, Piciarelli, Foresti (VT-ADL), ISIE 2021."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, folder, images, normals, pair
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class BTAD(AnomalyDataModule):
    """ROOT/01/{train/ok, test/ok, test/ko, ground_truth/ko}; an image and its mask share a stem.

    They do not always share a format. A mask of either format is found, and one that fits no image, or an
    image with two, is an error.
    """

    category: Literal["01", "02", "03"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the product."""
        top = folder(self.root, self.category)
        problems = list[str]()
        if split != "test":
            return normals(folder(top, "train", "ok")) if split == "train" else []
        good = normals(folder(top, "test", "ok"))
        bad = images(folder(top, "test", "ko"))
        records = good + pair(bad, top / "ground_truth" / "ko", "ko", problems)
        if problems:
            raise ListingError(problems, records)
        return records
