"""What a setting does: a metric over the values of one key, beside the paper's curve."""

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from anomaly_lab.report.beside import Papers, PrintedCurve
from anomaly_lab.report.columns import Column
from anomaly_lab.report.tables import Table

RIM = 0.08  # of an axis, on either side, by what the points span
CONSTANT = 0.01  # the same where all are alike, by their height
ALIKE = 1e-6  # points that span less of their height differ by rounding
BEYOND = 0.02  # an axis never goes further beyond 0 and 1 for what lies between them
Point = tuple[str, float, float | None]  # the value of the key, the metric, its deviation over seeds


class Line(NamedTuple):
    """Runs that differ in the key alone."""

    others: str  # what else sets them apart, empty if nothing does
    points: Sequence[Point]


class Ablation(NamedTuple):
    """A plot.

    Attributes:
        categories: that all points of all lines are means over.
        printed: the paper's curve, if it is of what one of the lines is of.
        like: the lines beside which it stands.
    """

    table: Table
    model: str
    key: str
    categories: Sequence[str]
    lines: Sequence[Line]
    printed: PrintedCurve | None
    like: Sequence[Line]


class Varied(NamedTuple):
    """Columns that differ in the key alone, with the categories on which each is done."""

    others: str
    whole: dict[str, tuple[Column, set[str]]]  # by the value of the key

    @property
    def common(self) -> set[str]:
        """The categories that all of them have."""
        return set.intersection(*(names for _, names in self.whole.values()))


def ablations(tables: Sequence[Table], papers: Papers) -> Iterator[Ablation]:
    """Yield a plot for each metric, method and key of which runs have at least two values.

    Lines that share no category do not compare, and have a plot each.
    """
    for table in tables:
        for model in dict.fromkeys(column.model for column in table.columns):
            mine = [column for column in table.columns if column.model == model]
            for key in sorted({key for column in mine for key, _ in column.settings}):
                several = [one for one in _varied(table, mine, key) if len(one.whole) > 1 and one.common]
                shared = set.intersection(*(one.common for one in several)) if several else set()
                for group in [several] if shared else [[one] for one in several]:
                    yield from _plot(table, group, model, key, papers)


def _plot(
    table: Table, several: Sequence[Varied], model: str, key: str, papers: Papers
) -> Iterator[Ablation]:
    over = sorted(set.intersection(*(one.common for one in several)))
    lines: list[Line] = []
    curves: list[tuple[Line, PrintedCurve]] = []
    for one in several:
        found = [_point(table, one.whole[value][0], value, over) for value in sorted(one.whole, key=sorting)]
        line = Line(one.others, [point for point in found if point is not None])
        if len(line.points) > 1:
            lines.append(line)
            drawn = [one.whole[value][0] for value, *_ in line.points]
            printed = papers.curve(table.data, over, drawn, table.metric, key)
            curves += [] if printed is None else [(line, printed)]
    if lines:
        despite = sorted({pair for _, printed in curves for pair in printed.despite})
        curve = curves[0][1]._replace(despite=tuple(despite)) if curves else None
        yield Ablation(table, model, key, over, lines, curve, [line for line, _ in curves])


def _varied(table: Table, columns: Sequence[Column], key: str) -> Iterator[Varied]:
    groups: dict[tuple[tuple[str, str], ...], dict[str, tuple[Column, set[str]]]] = {}
    names: dict[tuple[tuple[str, str], ...], str] = {}
    for column in columns:
        values = dict(column.settings)
        whole = {name for name in table.categories if table.is_whole(name, column)}
        if key in values and whole:
            others = tuple(pair for pair in column.settings if pair[0] != key)
            group = (*others, ("tag", column.tag))
            groups.setdefault(group, {})[values[key]] = (column, whole)
            shown = [*(pair for pair in column.shown if pair[0] != key), ("tag", column.tag)]
            names[group] = " ".join(f"{name}={text}" for name, text in shown if text)
    for group, by_value in groups.items():
        yield Varied(names[group], by_value)


def _point(table: Table, column: Column, value: str, categories: Sequence[str]) -> Point | None:
    """Return mean and deviation over the seeds that all categories have; None if they share none."""
    cells = [table.cells[name, column] for name in categories]
    seeds = sorted(set.intersection(*(set(cell.by_seed) for cell in cells)))
    means = [statistics.fmean(cell.by_seed[seed] for cell in cells) for seed in seeds]
    if not means:
        return None
    return value, statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else None


def extent(one: Ablation) -> tuple[float, float]:
    """Return the ends of the metric's axis: all points, their bars and the paper's curve, with a rim.

    What only has values in [0, 1] has an axis within them, but for the rim.
    """
    points = [(mean, sd or 0.0) for line in one.lines for _, mean, sd in line.points]
    points += [(printed.value, 0.0) for printed in one.printed.points.values()] if one.printed else []
    low = min(mean - sd for mean, sd in points)
    high = max(mean + sd for mean, sd in points)
    largest = max(abs(low), abs(high))
    alike = high - low <= ALIKE * largest
    rim = CONSTANT * (largest or 1.0) if alike else RIM * (high - low)
    if all(0 <= mean <= 1 for mean, _ in points):
        return max(low - rim, -BEYOND), min(high + rim, 1 + BEYOND)
    return low - rim, high + rim


def sorting(value: str) -> tuple[int, float, str]:
    """Return what numbers are sorted by as numbers, texts behind them."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
