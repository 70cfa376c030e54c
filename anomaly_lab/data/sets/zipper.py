"""Zipper cursors: Saeedi, Giusti (CPCAE-kNN), VISAPP 2022; not MVTec AD's zipper."""

from dataclasses import dataclass
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import folder, images, normals
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Zipper(AnomalyDataModule):
    """Six sets of cursors, without masks: ROOT/SET/{train, test/ok, test/defective}.

    The first folder has good images alone. That layout and the names zipper_1 to zipper_6 are ASSUMED: the
    images are not published.
    """

    category: Literal["zipper_1", "zipper_2", "zipper_3", "zipper_4", "zipper_5", "zipper_6"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the set."""
        top = folder(self.root, self.category)
        if split != "test":
            return normals(folder(top, "train")) if split == "train" else []
        bad = images(folder(top, "test", "defective"))
        good = normals(folder(top, "test", "ok"))
        return good + [ImageRecord(file, None, label=True, defect="defective") for file in bad]
