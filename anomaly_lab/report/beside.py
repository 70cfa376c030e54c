"""The printed number that belongs beside one of ours."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, final

from anomaly_lab.report.tables import Column
from anomaly_lab.runs.papers import PaperTable

OTHERS = {"by_a_user", "released_weights"}  # protocols of numbers that no paper's authors trained for


class Printed(NamedTuple):
    """A number as a paper prints it."""

    value: float
    digits: int  # behind the point
    table: PaperTable
    flag: str  # a word of the table where something is wrong with it, else empty


class PrintedPlace(NamedTuple):
    """What a printed number is of."""

    data: str
    categories: frozenset[str]  # one, or those that a mean is over
    method: str
    metric: str


class PrintedEntry(NamedTuple):
    """A printed number with what its table varies, and to what."""

    settings: dict[str, str]
    printed: Printed


@final
class Papers:
    """Finds printed numbers; the method's own paper is asked first, then those that quote it."""

    def __init__(self, tables: Sequence[PaperTable]) -> None:
        asked = [table for table in tables if not OTHERS & {word.name for word in table.protocol}]
        self._found: dict[PrintedPlace, list[PrintedEntry]] = {}
        for table in asked:
            for place, entry in _numbers(table, asked):
                self._found.setdefault(place, []).append(entry)

    def beside(self, data: str, over: Collection[str], column: Column, metric: str) -> Printed | None:
        """Return what is printed for one category, or for the mean over exactly these.

        There is none for a configuration that differs from its recipe in more than the print says.
        """
        method = column.model.removesuffix("_small")
        known = dict(column.settings) | dict(column.differs)
        fitting = [
            entry.printed
            for entry in self._found.get(PrintedPlace(data, frozenset(over), method, metric), [])
            if dict(column.differs).keys() <= entry.settings.keys()
            and all(known.get(key) == value for key, value in entry.settings.items())
        ]
        own = [printed for printed in fitting if method.startswith(printed.table.paper.name)]
        return next(iter(own + fitting), None)


def _numbers(table: PaperTable, tables: Sequence[PaperTable]) -> Iterator[tuple[PrintedPlace, PrintedEntry]]:
    for cell in table.cells:
        if cell.value is not None:
            printed = Printed(cell.value, cell.digits, table, cell.flag)
            of = frozenset([cell.category]) if cell.category else _all_of(cell.data, tables)
            yield (
                PrintedPlace(cell.data, of, cell.method, cell.metric),
                PrintedEntry(dict(cell.settings), printed),
            )
    for mean in table.means:
        if mean.value is not None:
            printed = Printed(mean.value, mean.digits, table, mean.flag)
            of = frozenset(mean.categories)
            yield PrintedPlace(table.cells[0].data, of, mean.method, mean.metric), PrintedEntry({}, printed)


def _all_of(data: str, tables: Sequence[PaperTable]) -> frozenset[str]:
    """Return all categories of a data set that any table has, which a number for all of it is over."""
    cells = (cell for table in tables for cell in table.cells)
    return frozenset(cell.category for cell in cells if cell.data == data and cell.category)
