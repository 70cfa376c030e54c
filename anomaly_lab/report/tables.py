"""From runs to tables: rows are categories, columns are configurations, a cell is a mean over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, final

from omegaconf import OmegaConf

from anomaly_lab.config.kept import read_kept
from anomaly_lab.errors import RunError
from anomaly_lab.evaluation.definitions import FIRST, VERSIONS
from anomaly_lab.report.found import SMALL, Run, shown

# The seven of ADer (Zhang et al., 2024), whose mean its tables call mAD.
SEVEN = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro")
ALL_SEVEN = "mad"
RECIPES = "recipe's"  # a value that no run tells


class Column(NamedTuple):
    """A configuration: a method with whatever in it differs from its recipe."""

    model: str
    settings: tuple[tuple[str, str], ...]  # dotted keys that vary in this table, with their values
    tag: str  # empty where it is that of all runs
    differs: tuple[tuple[str, str], ...] = ()  # all that the recipe has otherwise

    @property
    def reduced(self) -> bool:
        """Whether the recipe is a shortened one, which no paper had."""
        return self.model.endswith(SMALL)


@final
@dataclass(frozen=True)
class TableCell:
    """What the seeds of one configuration reached on one category.

    Attributes:
        by_seed: the metric of each seed that is done and has it; of several runs that of the last begun.
        unfinished, failed: how many seeds are not done.
        mixed: its runs were made from different data, textures, weights or code, so it has no number.
        versions: the definitions of the metric that its numbers are of.
        outdated: whether one of them is not today's.
    """

    by_seed: Mapping[int, float]
    unfinished: int = 0
    failed: int = 0
    mixed: bool = False
    versions: frozenset[int] = frozenset()
    outdated: bool = False

    @cached_property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @cached_property
    def sd(self) -> float | None:
        """The sample's standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

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


def tables(runs: Sequence[Run], metrics: Sequence[str]) -> list[Table]:
    """Return a table for each data set and metric that any run has."""
    found: list[Table] = []
    for name in dict.fromkeys(run.data for run in runs):
        mine = [run for run in runs if run.data == name]
        columns = configurations(mine)
        found += [_table(name, [(run, columns[run.path]) for run in mine], metric) for metric in metrics]
    return [table for table in found if any(cell.by_seed for cell in table.cells.values())]


def configurations(runs: Sequence[Run]) -> dict[Path, Column]:
    """Return the column of each run's path; the runs are of one data set.

    It names the keys whose values differ among the runs of its method, and its tag where there are several.
    """
    tags = len({run.tag for run in runs}) > 1
    columns = {}
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run for run in runs if run.model == model]
        keys = sorted({key for run in mine for key in run.differs})
        varied = [key for key in keys if len({run.differs.get(key) for run in mine}) > 1]
        recipes = {key: _recipes_value(mine, key) for key in varied}
        for run in mine:
            settings = tuple((key, run.differs.get(key, recipes[key])) for key in varied)
            differs = tuple(sorted(run.differs.items()))
            columns[run.path] = Column(model, settings, run.tag if tags else "", differs)
    return columns


def shared_settings(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return model, key and value of what all runs of a method have, and their recipe has not."""
    shared: list[tuple[str, str, str]] = []
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run.differs for run in runs if run.model == model]
        alike = (pair for pair in mine[0].items() if all(pair in differs.items() for differs in mine))
        shared += [(model, key, value) for key, value in alike]
    return sorted(shared)


def repeated(runs: Sequence[Run]) -> int:
    """Return how many runs are done more than there are seeds of a configuration on a category."""
    done = [run for run in runs if run.status == "done"]
    places = {(r.model, r.data, r.category, r.tag, r.seed, *sorted(r.differs.items())) for r in done}
    return len(done) - len(places)


def value_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """Return one of a run's metrics; ``mad`` is the mean of seven, of a run that has them all."""
    if metric != ALL_SEVEN:
        return metrics.get(metric)
    seven = [metrics[name] for name in SEVEN if name in metrics]
    return statistics.fmean(seven) if len(seven) == len(SEVEN) else None


def _recipes_value(runs: Sequence[Run], key: str) -> str:
    """Return what the recipe has where runs of a method differ in a key; a run that has it tells."""
    for run in runs:
        if key not in run.differs:
            with suppress(RunError):  # its config is damaged; another may tell
                value = OmegaConf.select(read_kept(run.path / "config.yaml"), key, default=RECIPES)
                return shown(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    return RECIPES


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


def outdated(run: Run, metric: str) -> bool:
    """Return whether a run's metric is of another definition than today's; ``mad`` if one of seven is."""
    names = SEVEN if metric == ALL_SEVEN else (metric,)
    return any(run.version(name) != VERSIONS.get(name, FIRST) for name in names)


def _cell(runs: Sequence[Run], metric: str) -> TableCell:
    if len({run.made_from for run in runs if run.status == "done"}) > 1:
        return TableCell({}, mixed=True)
    done = {run.seed for run in runs if run.status == "done"}
    failed = {run.seed for run in runs if run.status == "failed"} - done
    others = {run.seed for run in runs} - done - failed
    values = [(run, value_of(run.metrics, metric)) for run in sorted(runs, key=lambda run: run.started)]
    counted = {run.seed: (run, value) for run, value in values if value is not None}
    by_seed = {seed: value for seed, (_, value) in counted.items()}
    versions = frozenset(run.version(metric) for run, _ in counted.values())
    old = any(outdated(run, metric) for run, _ in counted.values())
    return TableCell(by_seed, len(others), len(failed), versions=versions, outdated=old)


def mean_over(cells: Sequence[TableCell], categories: int) -> TableCell | None:
    """Return the mean of a configuration over so many categories, seed by seed.

    None unless there are two at least, and each has the same seeds, all done.
    """
    whole = [cell for cell in cells if cell.whole]
    if categories < 2 or len(whole) < categories or len({frozenset(cell.by_seed) for cell in whole}) > 1:
        return None
    seeds = sorted(whole[0].by_seed)
    means = {seed: statistics.fmean(cell.by_seed[seed] for cell in whole) for seed in seeds}
    versions = frozenset[int]().union(*(cell.versions for cell in whole))
    return TableCell(means, versions=versions, outdated=any(cell.outdated for cell in whole))
