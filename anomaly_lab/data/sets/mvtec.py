"""MVTec AD: Bergmann, Fauser, Sattlegger, Steger, CVPR 2019; any data in its layout."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, mvtec_tree
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class MVTec(AnomalyDataModule):
    """ROOT/CATEGORY/{train/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.png}.

    There may also be validation/good.
    """

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the category."""
        return mvtec_tree(folder(self.root, self.category), split)
