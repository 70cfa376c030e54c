"""The columns of tables: which runs are of one configuration, and what it differs in from its recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anomaly_lab.report.recipes import settings_of
from anomaly_lab.report.run import Run, is_oracle
from anomaly_lab.report.values import brief_values

RECIPES = "recipe's"  # a value that no run tells


class Column(NamedTuple):
    """A configuration: a method with whatever in it differs from its recipe."""

    model: str
    settings: tuple[tuple[str, str], ...]  # dotted keys that vary in this table, with their values
    tag: str  # empty where it is that of all runs, and no oracle's
    differs: tuple[tuple[str, str], ...] = ()  # all that the recipe has otherwise
    texts: tuple[str, ...] = ()  # what is shown of the values of the settings; empty: all of them
    supervised: bool = False  # its runs learned from labelled defects

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """The settings with their values as they are shown, which no other column of the table has."""
        if not self.texts:
            return self.settings
        return tuple((key, text) for (key, _), text in zip(self.settings, self.texts, strict=True))


def configurations(runs: Sequence[Run]) -> dict[Path, Column]:
    """Return the column of each run's path; the runs are of one data set.

    It names the keys whose values differ among the runs of its method, and its tag where there are several;
    an oracle's always, as its numbers are no fair ones.
    """
    tags = len({run.tag for run in runs}) > 1
    columns = {}
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run for run in runs if run.model == model]
        keys = sorted({key for run in mine for key in run.differs})
        varied = [key for key in keys if len({run.differs.get(key) for run in mine}) > 1]
        recipes = {key: _recipes_value(mine, key) for key in varied}
        texts = {key: brief_values(run.differs.get(key, recipes[key]) for run in mine) for key in varied}
        for run in mine:
            settings = tuple((key, run.differs.get(key, recipes[key])) for key in varied)
            shown = tuple(texts[key][value] for key, value in settings)
            differs = tuple(sorted(run.differs.items()))
            tag = run.tag if tags or is_oracle(run.tag) else ""
            columns[run.path] = Column(model, settings, tag, differs, shown, run.anomalies > 0)
    return columns


def comparable(columns: Sequence[Column]) -> list[Column]:
    """Return those that are fair beside each other: no oracle, and none that saw labels beside others."""
    fair = [column for column in columns if not is_oracle(column.tag)]
    return [column for column in fair if not column.supervised] or fair


def shared_settings(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return of whom, key and value of what all runs of a method on a data set have, and the recipe has not.

    Whom: the method where it is so on each of its data sets, else ``METHOD on DATA``.
    """
    shared: list[tuple[str, str, str]] = []
    for model in dict.fromkeys(run.model for run in runs):
        by_data: dict[str, set[tuple[str, str]]] = {}
        for run in (run for run in runs if run.model == model):
            mine = set(run.differs.items())
            by_data[run.data] = by_data.get(run.data, mine) & mine
        everywhere = set.intersection(*by_data.values())
        shared += [(model, key, value) for key, value in everywhere]
        shared += [
            (f"{model} on {data}", key, value)
            for data, pairs in by_data.items()
            for key, value in pairs - everywhere
        ]
    return sorted(shared)


def repeated(runs: Sequence[Run]) -> int:
    """Return how many runs are done more than there are seeds of a configuration on a category."""
    done = [run for run in runs if run.status == "done"]
    places = {(r.model, r.data, r.category, r.tag, r.seed, *sorted(r.differs.items())) for r in done}
    return len(done) - len(places)


def _recipes_value(runs: Sequence[Run], key: str) -> str:
    """Return what the recipe has where runs of a method differ in a key; a run that has it tells."""
    told = (settings_of(run.path).get(key) for run in runs if key not in run.differs)
    return next((value for value in told if value is not None), RECIPES)
