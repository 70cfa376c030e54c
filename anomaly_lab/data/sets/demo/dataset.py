"""The demo data: drawn on first use, so that a first run needs no download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import mvtec_tree
from anomaly_lab.data.sets.demo.parts import write_demo
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Demo(AnomalyDataModule):
    """Drawn industrial parts in MVTec AD's layout.

    A smoke test that is not trivial, never evidence for a method.
    """

    category: Literal["weave", "nut", "chip"]

    @classmethod
    def categories(cls, root: str) -> list[str]:  # noqa: ARG003 - they need not be there
        """Return all three."""
        return ["weave", "nut", "chip"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split, after drawing the category if it is not there."""
        write_demo(Path(self.root), self.category)
        return mvtec_tree(Path(self.root) / self.category, split)
