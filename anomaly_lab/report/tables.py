"""From runs to tables: rows are categories, columns are configurations, a cell is a mean over seeds."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from omegaconf import ListConfig, OmegaConf

from anomaly_lab.config.kept import read_kept
from anomaly_lab.report.found import Run

# The seven of ADer (Zhang et al., 2024), whose mean its tables call mAD.
SEVEN = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro")
ALL_SEVEN = "mad"
NOT_A_SETTING = {"data.category", "data.root"}  # keys that name what is measured, not how


class Column(NamedTuple):
    """A configuration: a method with whatever in it differs from its recipe."""

    model: str
    settings: tuple[tuple[str, str], ...]  # dotted keys and values
    tag: str  # empty where it is that of all runs


@final
@dataclass(frozen=True)
class TableCell:
    """What the seeds of one configuration reached on one category.

    Attributes:
        by_seed: the metric of each seed that is done and has it; of several runs that of the last begun.
        unfinished, failed: how many runs are not done.
        repeated: how many more runs are done than there are seeds.
    """

    by_seed: Mapping[int, float]
    unfinished: int = 0
    failed: int = 0
    repeated: int = 0

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @property
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
    columns = configurations(runs)
    found = [
        _table(name, [(run, columns[run.path]) for run in runs if run.data == name], metric)
        for name in dict.fromkeys(run.data for run in runs)
        for metric in metrics
    ]
    return [table for table in found if any(cell.by_seed for cell in table.cells.values())]


def configurations(runs: Sequence[Run]) -> dict[Path, Column]:
    """Return the column of each run's path.

    It names the keys whose values differ among the runs of its method, and its tag where there are several.
    """
    tags = len({run.tag for run in runs}) > 1
    columns = {}
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run for run in runs if run.model == model]
        keys = _varied(mine)
        recipes = {key: _recipes_value(mine, key) for key in keys}
        for run in mine:
            settings = tuple((key, shown(run.differs.get(key, recipes[key]))) for key in keys)
            columns[run.path] = Column(model, settings, run.tag if tags else "")
    return columns


def shared_settings(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return model, key and value of what all runs of a method have, and their recipe has not."""
    shared = []
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run for run in runs if run.model == model]
        for key, value in mine[0].differs.items():
            alike = all(shown(run.differs.get(key, ...)) == shown(value) for run in mine)
            shared += [(model, key, shown(value))] if alike and key not in NOT_A_SETTING else []
    return sorted(shared)


def value_of(run: Run, metric: str) -> float | None:
    """Return a metric of a run; ``mad`` is the mean of seven, of a run that has them all."""
    if metric != ALL_SEVEN:
        return run.metrics.get(metric)
    seven = [run.metrics[name] for name in SEVEN if name in run.metrics]
    return statistics.fmean(seven) if len(seven) == len(SEVEN) else None


def shown(value: Any) -> str:
    """Return a value of a config as one types it."""
    if isinstance(value, list | ListConfig):
        return f"[{','.join(map(shown, value))}]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _varied(runs: Sequence[Run]) -> list[str]:
    """Return the keys that differ from the recipe in some of the runs, and not alike in all."""
    keys = sorted({key for run in runs for key in run.differs} - NOT_A_SETTING)
    return [key for key in keys if len({shown(run.differs.get(key, ...)) for run in runs}) > 1]


def _recipes_value(runs: Sequence[Run], key: str) -> Any:
    """Return what the recipe has where runs of a method differ in a key; a run that has it tells."""
    plain = next((run for run in runs if key not in run.differs), None)
    return None if plain is None else OmegaConf.select(read_kept(plain.path / "config.yaml"), key)


def _table(data: str, runs: Sequence[tuple[Run, Column]], metric: str) -> Table:
    groups: dict[tuple[str, Column], list[Run]] = {}
    for run, column in runs:
        groups.setdefault((run.category, column), []).append(run)
    cells = {place: _cell(group, lambda run: value_of(run, metric)) for place, group in groups.items()}
    categories = sorted({category for category, _ in cells})
    columns = sorted({column for _, column in cells})
    means = {column: mean for column in columns if (mean := _mean(categories, column, cells))}
    return Table(data, metric, categories, columns, cells, means)


def _cell(runs: Sequence[Run], value: Callable[[Run], float | None]) -> TableCell:
    values = [(run.seed, value(run)) for run in sorted(runs, key=lambda run: run.started)]
    known = [(seed, found) for seed, found in values if found is not None]
    states = [run.status for run in runs]
    by_seed = dict(known)
    return TableCell(by_seed, states.count("unfinished"), states.count("failed"), len(known) - len(by_seed))


def _mean(
    categories: Sequence[str], column: Column, cells: Mapping[tuple[str, Column], TableCell]
) -> TableCell | None:
    """Return the mean over the categories, seed by seed; None unless each has the same seeds, all done."""
    mine = [cells.get((category, column)) for category in categories]
    whole = [cell for cell in mine if cell is not None and cell.whole]
    if len(categories) < 2 or len(whole) < len(categories) or len({frozenset(c.by_seed) for c in whole}) > 1:
        return None
    return TableCell(
        {seed: statistics.fmean(cell.by_seed[seed] for cell in whole) for seed in sorted(whole[0].by_seed)}
    )
