"""MPDD, painted metal parts: Jezek, Jonak, Burget, Dvorak, Skotak, ICUMT 2021.

doi 10.1109/ICUMT54235.2021.9631567
"""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, mvtec_tree
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class MPDD(AnomalyDataModule):
    """Six kinds of part, in MVTec AD's layout.

    The parts lie anyhow, so that any position and rotation is normal. In all 888 normal images are for
    training, 176 for testing; 282 are defective.
    """

    category: Literal["bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the kind of part."""
        return mvtec_tree(folder(self.root, self.category), split)
