"""VisA: Zou, Jeong, Pemula, Zhang, Dabeer, "SPot-the-Difference ...", ECCV 2022, arXiv 2207.14315."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.listing import ListingError, folder
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

COLUMNS = ["object", "split", "label", "image", "mask"]
# Of a row: split, label, whether it names a mask.
KINDS = {
    ("train", "normal", False),
    ("test", "normal", False),
    ("test", "anomaly", False),
    ("test", "anomaly", True),
}
SOURCE = "it comes with the archive and from github.com/amazon-science/spot-diff"


@final
@dataclass(kw_only=True, eq=False, repr=False)
class VisA(AnomalyDataModule):
    """Twelve objects; ROOT/split_csv/1cls.csv, the published one-class split, says what each file is.

    Its paths are relative to ROOT. A mask's values are kinds of defect, 0 none (`images.read_mask`).
    """

    category: Literal[
        "candle",
        "capsules",
        "cashew",
        "chewinggum",
        "fryum",
        "macaroni1",
        "macaroni2",
        "pcb1",
        "pcb2",
        "pcb3",
        "pcb4",
        "pipe_fryum",
    ]

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List one split of the object in the order of the csv, good images first."""
        if split == "validation":
            return []
        root = folder(self.root)
        table = root / "split_csv" / "1cls.csv"
        mine = rows_of(table, self.category)
        folder(root, self.category)  # one line if the whole object is missing
        rows = [row for row in mine if row["split"] == split]
        records = [_record(root, row) for row in sorted(rows, key=lambda row: row["label"] == "anomaly")]
        problems = list[str]()
        missing = [path for r in records for path in r[:2] if path and not path.is_file()]
        if missing:
            way_out = "unpack the whole archive there, or take the rows out"
            problems.append(
                f"{missing[0]}: is in {table.name} but not there ({len(missing)} such files); {way_out}"
            )
        times = Counter(row["image"] for row in mine)
        twice = [row["image"] for row in rows if times[row["image"]] > 1]
        problems += [
            f"{table}: has {times[image]} rows of {image}; keep one" for image in dict.fromkeys(twice)
        ]
        if problems:
            raise ListingError(problems, [record for record in records if not {*record[:2]} & {*missing}])
        return records


def rows_of(table: Path, category: str) -> list[dict[str, str]]:
    """Read an object's rows, by column; line ends, a byte order mark and spaces around a value do not matter.

    Raises:
        DataError: there is no such file, or it is not that of the one-class split, or it has no row of the
            object, or one of these names a file outside of the data set.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = [[value.strip() for value in line] for line in csv.reader(file)]
    except FileNotFoundError as error:
        raise DataError(
            f"{table}: no such file; {SOURCE}. For a tree made by its prepare_data.py use mvtec"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a csv file; {SOURCE}") from error
    header, *body = [line for line in lines if any(line)] or [[]]
    wrong = [header] if header != COLUMNS else [line for line in body if len(line) != len(COLUMNS)]
    if wrong:
        raise DataError(
            f"{table}: has {','.join(wrong[0])!r} where {','.join(COLUMNS)} are expected; {SOURCE}"
        )
    rows = [dict(zip(COLUMNS, line, strict=True)) for line in body]
    mine = [row for row in rows if row["object"] == category]
    if not mine:
        there = ", ".join(sorted({row["object"] for row in rows}))
        raise DataError(f"{table}: has no rows of {category}; there are: {there}")
    if odd := [row for row in mine if (row["split"], row["label"], bool(row["mask"])) not in KINDS]:
        text = f"has {','.join(odd[0].values())!r} ({len(odd)} such rows), none of 1cls.csv"
        raise DataError(f"{table}: {text}; {SOURCE}")
    if outside := [row[key] for row in mine for key in ("image", "mask") if not _inside(row[key])]:
        way_out = "a path is relative to data.root and stays in it"
        raise DataError(f"{table}: names {outside[0]!r} ({len(outside)} such paths); {way_out}; {SOURCE}")
    return mine


def _inside(path: str) -> bool:
    return not Path(path).is_absolute() and ".." not in Path(path).parts and path.isprintable()


def _record(root: Path, row: dict[str, str]) -> ImageRecord:
    if row["label"] == "normal":
        return ImageRecord(root / row["image"], None, label=False, defect="good")
    return ImageRecord(
        root / row["image"], root / row["mask"] if row["mask"] else None, label=True, defect="anomaly"
    )
