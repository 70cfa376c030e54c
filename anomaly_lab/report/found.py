"""The runs below a folder, each with what differs from its recipe, and what cannot be read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anomaly_lab.errors import RunError
from anomaly_lab.report.recipes import by_todays_recipes
from anomaly_lab.report.run import LONGEST, Run, plain_path
from anomaly_lab.runs.reading import one_line

FLOORS = 4  # RUNS/MODEL/DATA/CATEGORY/NAME


class Found(NamedTuple):
    """The runs of a folder; a line for each that cannot be read, and for each recipe that was changed."""

    runs: list[Run]
    unreadable: list[str]
    changed: list[str]


def found(folder: Path) -> Found:
    """Read every run below a folder. RunError: the folder is not there.

    A damaged run is told, and so is a folder that cannot be looked into; the others count.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder; give that of your runs, runs=FOLDER")
    runs: list[Run] = []
    unreadable: list[str] = []
    for path in _directories(folder, FLOORS, unreadable):
        try:
            runs.append(Run.of(path))
        except (RunError, OSError) as error:
            unreadable.append(one_line(error, LONGEST))
    runs, changed = by_todays_recipes(runs)
    return Found(runs, unreadable, changed)


def _directories(folder: Path, floors: int, unreadable: list[str]) -> Iterator[Path]:
    """Yield the folders so many floors below that hold a manifest, sorted; a folder with none is no run."""
    try:
        if floors == 0:
            (folder / "manifest.json").stat()  # unlike exists it says that it may not look
            yield folder
            return
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[:1] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable.append(f"{plain_path(folder)}: cannot be looked into ({one_line(error.strerror)})")
        return
    for name in names:
        yield from _directories(folder / name, floors - 1, unreadable)
