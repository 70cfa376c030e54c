"""Mirrors of a run: dashboards that may show it; the run directory stays the record.

A mirror knows neither Hydra nor this project's other rooms: what it may show are the values of this file.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, final

from anomaly_lab.errors import ConfigError
from anomaly_lab.types import Picture


class RunFacts(NamedTuple):
    """What is known of a run before it begins.

    Attributes:
        path: of the run directory.
        config: all of it, resolved, plain types.
        choices: by group, the option that was chosen: ``model``, ``data``, ...
        group: what the run is one of several of: an experiment or a sweep, None alone.
        total, trainable: numbers of the method's parameters; 0 where it was not built.
    """

    path: Path
    config: dict[str, Any]
    choices: Mapping[str, str]
    group: str | None
    total: int = 0
    trainable: int = 0

    @property
    def labels(self) -> dict[str, Any]:
        """Which run it is, in the words of a table: data, category, model, seed."""
        category = self.config["data"]["category"]
        names = {"data": self.choices["data"], "category": category, "model": self.choices["model"]}
        return names | {"seed": self.config["seed"]}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the numbers of parameters by the name that a dashboard shows."""
        return {"parameters/total": self.total, "parameters/trainable": self.trainable}


class RunResult(NamedTuple):
    """What came out.

    Attributes:
        metrics: as metrics.json has them.
        step: of the training, at its end.
        seconds: since the mirrors were opened.
        pictures: that were drawn, as files of the run directory.
    """

    metrics: Mapping[str, float]
    step: int
    seconds: float
    pictures: Sequence[Picture]


class Board(ABC):
    """One run in one dashboard, open. Whatever a method raises costs the dashboard the rest of the run."""

    @property
    @abstractmethod
    def known_as(self) -> str:
        """Return the name by which the dashboard goes on with the run, empty if it needs none."""

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""

    @abstractmethod
    def result(self, result: RunResult) -> None:
        """Show what came out."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Let the dashboard have all, and know how the run ended."""


class Mirror(ABC):
    """A dashboard, as conf/logger sets it."""

    @abstractmethod
    def opened(self, facts: RunFacts, earlier: str) -> Board | None:
        """Return the run's board, None where there is nothing to show it on.

        Args:
            facts: of the run.
            earlier: what an earlier part of the run was ``known_as``, empty at its first.

        Raises:
            RunError: the dashboard did not open.
        """


@final
class Csv(Mirror):
    """Nothing beside training.csv, which every run writes."""

    def opened(self, facts: RunFacts, earlier: str) -> None:
        """Give no board."""


def need(name: str, *modules: str) -> None:
    """Raise ConfigError if one of the modules that ``logger=NAME`` needs is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        way_out = f"pip install anomaly_lab[{name}] or give logger=csv"
        raise ConfigError(f"logger={name}: {missing[0]} is not installed; {way_out}")
