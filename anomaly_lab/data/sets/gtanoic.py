"""GTanoIC: chips on a production line; Liu, Zhu, Feng, Zeng (PRFF-AD), Sensors 2023, 23(21), 8750."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, mvtec_tree
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class GTanoIC(AnomalyDataModule):
    """Seven types of chip. Nobody publishes the layout of its files; MVTec AD's is assumed.

    Per type 200 normal images are for training and 50 for testing; 60 to 87 defects (section 3, tables 1 and
    2).
    """

    category: Literal["D_A", "D_B", "D_C", "D_D", "D_E", "D_F", "D_G"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the chip type."""
        return mvtec_tree(folder(self.root, self.category), split)
