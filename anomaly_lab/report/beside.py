"""The paper's number that belongs beside one of ours."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, final

from anomaly_lab.report.tables import Column
from anomaly_lab.runs.papers import PaperTable

SETTINGS = tuple[tuple[str, str], ...]


class Printed(NamedTuple):
    """A number as a paper prints it."""

    value: float
    digits: int  # behind the point
    table: PaperTable
    flag: str  # a word of the table where something is wrong with it, else empty


@final
class Papers:
    """Finds printed numbers; the method's own paper is asked first, then those that quote it."""

    def __init__(self, tables: Iterable[PaperTable]) -> None:
        self._found: dict[tuple[str, str, str, str, SETTINGS], Printed] = {}
        for table in tables:
            for place, printed in _numbers(table):
                before = self._found.get(place)
                own = printed.table.paper.name == place[2]
                if before is None or (own and before.table.paper.name != place[2]):
                    self._found[place] = printed

    def beside(self, data: str, category: str, column: Column, metric: str) -> Printed | None:
        """Return what a paper has for the cell; ``category`` is empty for the mean over all of them."""
        return self._found.get((data, category, column.model.removesuffix("_small"), metric, column.settings))

    def used(self, found: Sequence[Printed]) -> list[PaperTable]:
        """Return the tables of these numbers, each once."""
        return list({printed.table.name: printed.table for printed in found}.values())


def _numbers(table: PaperTable) -> Iterator[tuple[tuple[str, str, str, str, SETTINGS], Printed]]:
    for cell in table.cells:
        if cell.value is not None:
            place = (cell.data, cell.category, cell.method, cell.metric, cell.settings)
            yield place, Printed(cell.value, cell.digits, table, cell.flag)
    data = table.cells[0].data
    for mean in table.means:
        if mean.value is not None and mean.over == "all":
            yield (data, "", mean.method, mean.metric, ()), Printed(mean.value, mean.digits, table, mean.flag)
