"""From runs to tables: rows are categories, columns are configurations, a cell is a mean over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from anomaly_lab.evaluation.definitions import PROTOCOLS, current
from anomaly_lab.report.columns import Column, configurations
from anomaly_lab.report.run import Run

# The seven of ADer (Zhang et al., 2024), whose mean its tables call mAD.
SEVEN = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro")
ALL_SEVEN = "mad"
# Of what other metrics are made; a paper's name for one of ours is said by the method, too (`printed`).
MADE_OF = {ALL_SEVEN: SEVEN, "pro_as_printed": ("pixel_auroc",)}
# What surrounds the name of one of ours: of images that are no ideal copies, the ends of an interval.
POISONED = "poison"
OF_IMAGES = "image_"
ENDS = ("_low", "_high")
# Why a cell has no number, though its runs are done.
OTHER_DATA = "of different data"  # or textures, weights, code
PERHAPS = "perhaps of different data"
OTHER_SETTINGS = "of different settings"


@final
@dataclass(frozen=True)
class TableCell:
    """What the seeds of one configuration reached on one category.

    Attributes:
        by_seed: the metric of each seed that is done and has it; of several runs that of the last begun.
        unfinished, failed: how many seeds are not done.
        mixed: why its runs are no seeds of one configuration, so that it has no number; empty if they are.
        versions: the definitions that its numbers are of, each a metric and its version.
        doubts: how many lines "look at this" its runs have that are done, of each seed the last begun.
    """

    by_seed: Mapping[int, float]
    unfinished: int = 0
    failed: int = 0
    mixed: str = ""
    versions: frozenset[tuple[str, int]] = frozenset()
    doubts: int = 0

    @cached_property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @cached_property
    def sd(self) -> float | None:
        """The sample's standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def outdated(self) -> bool:
        """Whether a number of it is by another definition than today's."""
        return any(version != current(name) for name, version in self.versions)

    @property
    def whole(self) -> bool:
        """Whether all of its runs are done and at least one has the metric."""
        return bool(self.by_seed) and not self.unfinished and not self.failed


@final
@dataclass(frozen=True)
class Table:
    """One metric on one data set.

    Attributes:
        cells: by category and column; absent where nothing was run.
        means: of each column whose cells are all whole and have the same seeds: over the categories, by seed.
    """

    data: str
    metric: str
    categories: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, Column], TableCell]
    means: Mapping[Column, TableCell]

    def is_whole(self, category: str, column: Column) -> bool:
        """Say whether all runs of a configuration on a category are done and have the metric."""
        cell = self.cells.get((category, column))
        return cell is not None and cell.whole


def tables(runs: Sequence[Run], metrics: Sequence[str]) -> list[Table]:
    """Return a table for each data set and metric that any run has, if only in cells without a number."""
    found: list[Table] = []
    for name in dict.fromkeys(run.data for run in runs):
        mine = [run for run in runs if run.data == name]
        columns = configurations(mine)
        found += [_table(name, [(run, columns[run.path]) for run in mine], metric) for metric in metrics]
    return [table for table in found if any(cell.by_seed or cell.mixed for cell in table.cells.values())]


def value_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """Return one of a run's metrics; ``mad`` is the mean of seven, of a run that has them all."""
    if metric != ALL_SEVEN:
        return metrics.get(metric)
    seven = [metrics[name] for name in SEVEN if name in metrics]
    return statistics.fmean(seven) if len(seven) == len(SEVEN) else None


def _table(data: str, runs: Sequence[tuple[Run, Column]], metric: str) -> Table:
    groups: dict[tuple[str, Column], list[Run]] = {}
    for run, column in runs:
        groups.setdefault((run.category, column), []).append(run)
    cells = {place: _cell(group, metric) for place, group in groups.items()}
    categories = sorted({category for category, _ in cells})
    columns = sorted({column for _, column in cells})
    by_column = {
        column: [cells[place] for category in categories if (place := (category, column)) in cells]
        for column in columns
    }
    found = {column: mean_over(mine, len(categories)) for column, mine in by_column.items()}
    means = {column: mean for column, mean in found.items() if mean is not None}
    return Table(data, metric, categories, columns, cells, means)


def made_of(metric: str) -> Sequence[str]:
    """Return the metrics whose definitions a metric's number is of; itself but for those made of others."""
    poisoned = metric.startswith(POISONED)
    name = f"{OF_IMAGES}{metric.rpartition(OF_IMAGES)[2]}" if poisoned else metric
    for end in ENDS:
        name = name.removesuffix(end)
    return (*MADE_OF.get(name, (name,)), *([POISONED] if poisoned else []))


def _versions(run: Run, metric: str) -> frozenset[tuple[str, int]]:
    return frozenset(
        (name, run.version(name, "" if name in PROTOCOLS else metric)) for name in made_of(metric)
    )


def _cell(runs: Sequence[Run], metric: str) -> TableCell:
    values = [(run, value_of(run.metrics, metric)) for run in sorted(runs, key=lambda run: run.started)]
    counted = {run.seed: (run, value) for run, value in values if value is not None}
    done = {run.seed for run in runs if run.status == "done"}
    failed = {run.seed for run in runs if run.status == "failed"} - done
    others = {run.seed for run in runs} - done - failed
    # Of each seed that of which the number is, else the last begun.
    last = {run.seed: run for run, _ in values if run.status == "done"}
    last |= {seed: run for seed, (run, _) in counted.items()}
    doubts = sum(len(run.doubts) for run in last.values())
    if why := _unlike([run for run in runs if run.status == "done"]):
        return TableCell({}, len(others), len(failed), mixed=why if counted else "", doubts=doubts)
    by_seed = {seed: value for seed, (_, value) in counted.items()}
    versions = frozenset[tuple[str, int]]().union(*(_versions(run, metric) for run, _ in counted.values()))
    return TableCell(by_seed, len(others), len(failed), versions=versions, doubts=doubts)


def _unlike(runs: Sequence[Run]) -> str:
    """Return why runs are no seeds of one configuration; empty if they are.

    Which normals are held out follows the seed, and so does the fingerprint of the data. It has to serve for
    older runs, which keep nothing better: where it is the same, the data are.
    """
    contents = {run.data_content for run in runs}
    if len({run.made_from for run in runs}) > 1 or len(contents - {""}) > 1:
        return OTHER_DATA
    if "" in contents and len({run.data_fingerprint for run in runs}) > 1:
        return PERHAPS
    return OTHER_SETTINGS if len({run.config_hash for run in runs}) > 1 else ""


def mean_over(cells: Sequence[TableCell], categories: int) -> TableCell | None:
    """Return the mean of a configuration over so many categories, seed by seed.

    None unless there are two at least, and each has the same seeds, all done.
    """
    whole = [cell for cell in cells if cell.whole]
    if categories < 2 or len(whole) < categories or len({frozenset(cell.by_seed) for cell in whole}) > 1:
        return None
    seeds = sorted(whole[0].by_seed)
    means = {seed: statistics.fmean(cell.by_seed[seed] for cell in whole) for seed in seeds}
    versions = frozenset[tuple[str, int]]().union(*(cell.versions for cell in whole))
    return TableCell(means, versions=versions, doubts=sum(cell.doubts for cell in whole))
