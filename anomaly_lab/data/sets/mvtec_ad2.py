"""MVTec AD 2: Heckler-Kram, Neudeck, Scheler, Koenig, Steger, arXiv 2503.21622, 2025."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, folder, images, normals, pair
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class MVTecAD2(AnomalyDataModule):
    """Eight objects; the test set is test_public, the only one whose labels are published.

    ROOT/CATEGORY/{train/good, validation/good, test_public/{good, bad, ground_truth/bad/STEM_mask.png}}. The
    images of test_private and test_private_mixed are not read.
    """

    category: Literal["can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the object."""
        top = folder(self.root, self.category)
        problems = list[str]()
        if split != "test":
            return normals(folder(top, split, "good"))
        public = folder(top, "test_public")
        bad = images(folder(public, "bad"))
        records = normals(folder(public, "good")) + pair(
            bad, public / "ground_truth" / "bad", "bad", problems
        )
        if problems:
            raise ListingError(problems, records)
        return records
