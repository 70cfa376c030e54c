"""Magnetic tiles: Huang, Qiu, Yuan, The Visual Computer 36, 2020.

"Surface defect saliency of magnetic tile".
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, beside, drawn, folder, images
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

DEFECTS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
# Each tile was photographed under six exposures (exp1 to exp6) while one counter (num) ran on. Of the
# published good images most steps inside a tile are below 100 and the largest is 520; wider apart are surely
# two tiles.
LARGEST_STEP = 600
# Published with blank masks (all in MT_Uneven): as truth they would call the defect normal, pixel by pixel.
UNMARKED = {"exp3_num_45042", "exp4_num_45057", "exp4_num_124690", "exp4_num_352527"}


@final
@dataclass(kw_only=True, eq=False, repr=False)
class MagneticTile(AnomalyDataModule):
    """ROOT/MT_DEFECT/Imgs/expE_num_N.{jpg, png}: image and mask; MT_Free holds the good ones.

    No split is published. There are 952 good images and 392 defective ones, of which the four whose masks are
    blank are left out. All exposures of a tile stand on one side, as far as their numbers tell: MT_Free also
    has exposures of tiles with a defect, which show it badly or not at all, so good tiles with numbers next
    to a defective image's are for testing in any case.

    Attributes:
        test_share: of the other good tiles are for testing, drawn by a hash of the first file's name, not by
            seed.
    """

    category: Literal["magnetic_tile"]
    test_share: float

    @classmethod
    def categories(cls, root: str) -> list[str]:  # noqa: ARG003 - the root is the category
        """Return the only one."""
        return ["magnetic_tile"]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List good images for training, or those for testing and all defective ones."""
        if split == "validation":
            return []
        bad, tiles, problems = self._listed
        defective = sorted(number(record.image) for record in bad)
        near = {name for name, tile in tiles.items() if any(_near(number(file), defective) for file in tile)}
        test = near | drawn(tiles.keys() - near, self.test_share)
        good = [file for name, tile in tiles.items() if (name in test) == (split == "test") for file in tile]
        records = [ImageRecord(file, None, label=False, defect="good") for file in sorted(good)]
        if split == "test":
            records += [record for record in bad if record.image.stem not in UNMARKED]
        if problems:
            raise ListingError(problems, records)
        return records

    @cached_property
    def _listed(self) -> tuple[list[ImageRecord], dict[str, list[Path]], list[str]]:
        """All defective images, all good ones by tile, what does not fit together."""
        problems = list[str]()
        bad = list[ImageRecord]()
        for defect in DEFECTS:
            pairs = beside(images(folder(self.root, defect, "Imgs")), ".png", problems)
            bad += [ImageRecord(*pair, label=True, defect=defect) for pair in pairs.items()]
        return bad, tiles_of([*beside(images(folder(self.root, "MT_Free", "Imgs")), ".png", [])]), problems


def number(file: Path) -> int:
    """Return N of expE_num_N, or raise DataError."""
    if not (found := re.fullmatch(r"exp\d+_num_(\d+)", file.stem)):
        raise DataError(f"{file}: is not named expE_num_N, which tells its tile; rename it or take it out")
    return int(found[1])


def tiles_of(files: list[Path]) -> dict[str, list[Path]]:
    """Group the images of a tile by the name of the first of them.

    With them are those of tiles that cannot be told apart from it.
    """
    tiles: list[list[Path]] = []
    for file in sorted(files, key=number):
        if not tiles or number(file) - number(tiles[-1][-1]) > LARGEST_STEP:
            tiles.append([])
        tiles[-1].append(file)
    return {tile[0].name: tile for tile in tiles}


def _near(count: int, ascending: list[int]) -> bool:
    place = bisect_left(ascending, count - LARGEST_STEP)
    return place < len(ascending) and ascending[place] <= count + LARGEST_STEP
