"""Which runs stand for a configuration where one is shown, not a mean: the first seed that is done."""

from collections.abc import Sequence
from typing import NamedTuple

from anomaly_lab.report.columns import Column, configurations
from anomaly_lab.report.run import Run


class Chosen(NamedTuple):
    """A run that is shown, and the column that it belongs to."""

    run: Run
    column: Column


def chosen(runs: Sequence[Run]) -> dict[tuple[str, str], list[Chosen]]:
    """Return by data set and category a run of each configuration: done, of the lowest seed.

    Of several of that seed the last begun counts, as in the tables.
    """
    found: dict[tuple[str, str], list[Chosen]] = {}
    for data in dict.fromkeys(run.data for run in runs):
        mine = [run for run in runs if run.data == data]
        columns = configurations(mine)
        first: dict[tuple[str, Column], Run] = {}
        for run in sorted((run for run in mine if run.status == "done"), key=lambda run: run.started):
            place = (run.category, columns[run.path])
            if place not in first or run.seed <= first[place].seed:
                first[place] = run
        for (category, column), run in sorted(first.items(), key=lambda item: item[0]):
            found.setdefault((data, category), []).append(Chosen(run, column))
    return found
