"""What a setting does: a metric over the values of one key, beside the paper's curve."""

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from anomaly_lab.report.beside import Papers, PrintedCurve
from anomaly_lab.report.found import SMALL
from anomaly_lab.report.tables import Column, Table

Point = tuple[str, float, float | None]  # the value of the key, the metric, its deviation over seeds


class Line(NamedTuple):
    """Runs that differ in the key alone."""

    others: str  # what else sets them apart, empty if nothing does
    categories: Sequence[str]  # that all of its points are means over
    points: Sequence[Point]


class Ablation(NamedTuple):
    """A plot."""

    table: Table
    model: str
    key: str
    lines: Sequence[Line]
    printed: PrintedCurve | None


def ablations(tables: Sequence[Table], papers: Papers) -> Iterator[Ablation]:
    """Yield a plot for each metric, method and key of which runs have at least two values."""
    for table in tables:
        for model in dict.fromkeys(column.model for column in table.columns):
            mine = [column for column in table.columns if column.model == model]
            for key in sorted({key for column in mine for key, _ in column.settings}):
                lines = [line for line in _lines(table, mine, key) if len(line.points) > 1]
                if lines:
                    over = lines[0].categories
                    printed = papers.curve(table.data, over, model.removesuffix(SMALL), table.metric, key)
                    yield Ablation(table, model, key, lines, printed)


def _lines(table: Table, columns: Sequence[Column], key: str) -> Iterator[Line]:
    groups: dict[tuple[tuple[str, str], ...], dict[str, Column]] = {}
    for column in columns:
        values = dict(column.settings)
        if key in values:
            others = tuple(pair for pair in column.settings if pair[0] != key)
            groups.setdefault((*others, ("tag", column.tag)), {})[values[key]] = column
    for others, by_value in groups.items():
        whole = {
            value: {
                name
                for name in table.categories
                if (name, column) in table.cells and table.cells[name, column].whole
            }
            for value, column in by_value.items()
        }
        with_any = {value: names for value, names in whole.items() if names}
        common = sorted(set.intersection(*with_any.values())) if with_any else []
        if common:
            points = [
                _point(table, by_value[value], value, common) for value in sorted(with_any, key=sorting)
            ]
            said = " ".join(f"{name}={value}" for name, value in others if value)
            yield Line(said, common, points)


def _point(table: Table, column: Column, value: str, categories: Sequence[str]) -> Point:
    cells = [table.cells[name, column] for name in categories]
    seeds = set.intersection(*(set(cell.by_seed) for cell in cells))
    means = [statistics.fmean(cell.by_seed[seed] for cell in cells) for seed in sorted(seeds)]
    whole = all(set(cell.by_seed) == seeds for cell in cells)
    mean = statistics.fmean(cell.mean for cell in cells if cell.mean is not None)
    return value, mean, statistics.stdev(means) if whole and len(means) > 1 else None


def sorting(value: str) -> tuple[int, float, str]:
    """Return what numbers are sorted by as numbers, texts behind them."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
