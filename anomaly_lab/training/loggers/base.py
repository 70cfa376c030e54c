"""Mirrors of a run: dashboards that may show it; the run directory stays the record."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers import Logger


class Mirror(ABC):
    """Opens the loggers of one run and closes them with its outcome."""

    @abstractmethod
    def opened(self, path: Path, config: dict[str, Any]) -> AbstractContextManager[list[Logger]]:
        """Give the loggers while the body runs; a body that raises leaves them marked as failed."""


@final
class Csv(Mirror):
    """Nothing beside training.csv, which every run writes."""

    @contextmanager
    def opened(self, path: Path, config: dict[str, Any]) -> Iterator[list[Logger]]:
        """Give no further logger."""
        yield []
