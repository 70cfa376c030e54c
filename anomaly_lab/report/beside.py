"""The printed number that belongs beside one of ours."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, final

from anomaly_lab.report.columns import Column
from anomaly_lab.report.run import is_oracle, printed_as
from anomaly_lab.runs.papers import PaperTable

OTHERS = {"by_a_user", "released_weights"}  # protocols of numbers that no paper's authors trained for
# Keys that say where or how a run was computed, and not what: a printed number stands beside it, marked.
HOW = ("trainer.precision", "trainer.deterministic", "trainer.compile", "trainer.tf32")
FOLDERS = ".textures"  # how the keys end that say where photographs of textures lie
# Keys that move none of the metrics that a table shows.
IDLE = tuple(f"evaluation.{name}" for name in ("overlays", "bootstrap", "save_maps", "poison", "target_fpr"))
IDLE += ("data.masks",)


class Printed(NamedTuple):
    """A number as a paper prints it."""

    value: float
    digits: int  # behind the point
    table: PaperTable
    flag: str  # a word of the table where something is wrong with it, else empty
    despite: tuple[tuple[str, str], ...] = ()  # what our runs were computed with, and the recipe is not


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


class PrintedCurve(NamedTuple):
    """What a paper prints for several values of one key."""

    points: dict[str, Printed]  # by the value, as one types it
    categories: frozenset[str]  # that each is a mean over
    despite: tuple[tuple[str, str], ...]  # what our runs were computed with, and the recipe is not


@final
class Papers:
    """Finds printed numbers; the method's own paper is asked first, then those that quote it."""

    def __init__(self, tables: Sequence[PaperTable]) -> None:
        asked = [table for table in tables if not OTHERS & {word.name for word in table.protocol}]
        # By data set all categories that any table has, which a number for all of it is over.
        self._all: dict[str, set[str]] = {}
        for cell in (cell for table in asked for cell in table.cells if cell.category):
            self._all.setdefault(cell.data, set()).add(cell.category)
        self._found: dict[PrintedPlace, list[PrintedEntry]] = {}
        for table in asked:
            for place, entry in self._numbers(table):
                self._found.setdefault(place, []).append(entry)

    def beside(self, data: str, over: Collection[str], column: Column, metric: str) -> Printed | None:
        """Return what is printed for one category, or for the mean over exactly these.

        There is none for an oracle, nor for a configuration that differs from its recipe in more than the
        print says, but for where and how it was computed, which `Printed.despite` then names.
        """
        method = printed_as(column.model)
        known = dict(column.settings) | dict(column.differs)
        found = self._found.get(PrintedPlace(data, frozenset(over), method, metric), [])
        fitting = [
            entry.printed._replace(despite=despite)
            for entry in found
            if (despite := _despite(column, entry.settings)) is not None
            and all(known.get(key) == value for key, value in entry.settings.items())
        ]
        own = [printed for printed in fitting if method.startswith(printed.table.paper.name)]
        return next(iter(own + fitting), None)

    def curve(
        self, data: str, over: Collection[str], columns: Sequence[Column], metric: str, key: str
    ) -> PrintedCurve | None:
        """Return what is printed for the values of a key alone; over these categories, else over most.

        The columns are of one method and differ in the key alone. There is no curve beside what `beside` has
        no number for, but for the categories.
        """
        told = [_despite(column, {key}) for column in columns]
        despite = [pairs for pairs in told if pairs is not None]
        if len(despite) < len(told):
            return None
        method = printed_as(columns[0].model)
        found: dict[tuple[frozenset[str], str], dict[str, Printed]] = {}
        for place, entries in self._found.items():
            if (place.data, place.method, place.metric) == (data, method, metric):
                for settings, printed in entries:
                    if settings.keys() == {key}:
                        curve = found.setdefault((place.categories, printed.table.name), {})
                        curve[settings[key]] = printed
        several = {place: points for place, points in found.items() if len(points) > 1}
        if not several:
            return None
        wanted = max(several, key=lambda place: (place[0] == frozenset(over), len(place[0])))
        return PrintedCurve(several[wanted], wanted[0], tuple(sorted(set().union(*despite))))

    def _numbers(self, table: PaperTable) -> Iterator[tuple[PrintedPlace, PrintedEntry]]:
        for cell in table.cells:
            if cell.value is not None:
                printed = Printed(cell.value, cell.digits, table, cell.flag)
                of = frozenset([cell.category] if cell.category else self._all.get(cell.data, []))
                place = PrintedPlace(cell.data, of, cell.method, cell.metric)
                yield place, PrintedEntry(dict(cell.settings), printed)
        for mean in table.means:
            if mean.value is not None:
                printed = Printed(mean.value, mean.digits, table, mean.flag)
                of = frozenset(mean.categories)
                place = PrintedPlace(table.cells[0].data, of, mean.method, mean.metric)
                yield place, PrintedEntry({}, printed)


def _despite(column: Column, varied: Collection[str]) -> tuple[tuple[str, str], ...] | None:
    """Return in what a column was computed otherwise than its recipe says; None if it is another method.

    Args:
        column: of a table of ours.
        varied: keys that the print names itself, so that they count as no difference.
    """
    differs = {key: value for key, value in column.differs if key not in IDLE and key not in varied}
    how = {key: value for key, value in differs.items() if key in HOW or key.endswith(FOLDERS)}
    return None if is_oracle(column.tag) or differs.keys() - how.keys() else tuple(sorted(how.items()))
