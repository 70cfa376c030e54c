"""All dashboards of one run: opened together, closed with its outcome, and never what a run fails of."""

import logging
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, final

from lightning.pytorch.loggers import Logger

from anomaly_lab.errors import BusyError, RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import locked
from anomaly_lab.training.loggers.base import Board, Mirror, RunFacts, RunResult
from anomaly_lab.types import Picture

log = logging.getLogger(__name__)
FILE = "dashboards.json"  # by mirror: what it knows the run as, and whether a process left it open


@final
class OpenBoard(Logger):
    """A board as one of Lightning's loggers, until it fails: that is told once, and the run goes on.

    What Lightning says of an end is not passed on: the test comes after it.
    """

    def __init__(self, label: str, board: Board) -> None:
        self.label = label
        self.board = board
        self.failed = False

    @property
    def name(self) -> str:
        """The mirror's."""
        return self.label

    @property
    def version(self) -> str:
        """What the dashboard knows the run as."""
        return self.board.known_as

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to each curve."""
        self.attempt(lambda: self.board.scalars(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add nothing: the board was opened with the whole config."""

    def attempt(self, show: Callable[[], None]) -> None:
        """Show something, unless the board has failed before."""
        if self.failed:
            return
        try:
            show()
        except Exception as error:
            self.failed = True
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("logger=%s shows no more of this run (%s); it goes on", self.label, said)

    def close(self, *, failed: bool) -> bool:
        """Close the board, also one that has failed; say whether it took it."""
        try:
            self.board.close(failed=failed)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("logger=%s did not finish (%s); the run directory has everything", self.label, said)
            return False
        return True


@final
class Mirrors:
    """The mirrors of a run, by name, with what the run directory keeps of them.

    Args:
        mirrors: by the name of their option.
        directory: of the run.
        config: all of it, resolved, plain types.
        choices: by group, the option that was chosen.
        group: what the run is one of several of, if it is.
    """

    def __init__(
        self,
        mirrors: Mapping[str, Mirror],
        directory: RunDirectory,
        config: dict[str, Any],
        choices: Mapping[str, str],
        group: str | None,
    ) -> None:
        self.mirrors = mirrors
        self.directory = directory
        self.facts = RunFacts(directory.path, config, choices, group)
        self.boards: list[OpenBoard] = []
        self.begun = False

    @contextmanager
    def opened(self, sizes: tuple[int, int]) -> Iterator[Sequence[Logger]]:
        """Give the loggers while the body runs; a body that raises leaves the run marked as failed.

        Args:
            sizes: numbers of all parameters of the method, and of those that learn by gradients.

        Raises:
            RunError: a dashboard did not open.
        """
        self.begun = True
        self.facts = self.facts._replace(total=sizes[0], trainable=sizes[1])
        self.since = time.monotonic()
        failed = True
        try:
            for name in self.mirrors:
                self._open(name)
            yield self.boards
            failed = False
        finally:
            self._close(failed=failed)

    def show(self, metrics: Mapping[str, float], step: int, pictures: Sequence[Picture]) -> None:
        """Show what came out of the run."""
        result = RunResult(metrics, step, round(time.monotonic() - self.since, 1), pictures)
        for board in self.boards:
            board.attempt(lambda board=board: board.board.result(result))  # type: ignore[misc]

    @contextmanager
    def failing_early(self) -> Iterator[None]:
        """Mark as failed what a killed process left open, if the body fails before it takes it up again.

        A run that another process works on is left alone, and so is one that is interrupted.
        """
        try:
            yield
        except BusyError:
            raise
        except Exception:
            if not self.begun:
                with suppress(RunError):  # what a dashboard cannot be told is not why the run failed
                    self._mark_failed()
            raise

    def _mark_failed(self) -> None:
        left = [name for name, known in self._known().items() if known.get("open") and name in self.mirrors]
        if left:
            with locked(self.directory.path):
                try:
                    for name in left:
                        self._open(name)
                finally:
                    self._close(failed=True)

    def _open(self, name: str) -> None:
        known = self._known()
        earlier = known[name]["known_as"] if name in known else ""
        board = self.mirrors[name].opened(self.facts, earlier)
        if board is not None:
            self.boards.append(OpenBoard(name, board))
            self._note([self.boards[-1]], opened=True)

    def _close(self, *, failed: bool) -> None:
        closed = [board for board in self.boards if board.close(failed=failed)]
        self._note(closed, opened=False)
        self.boards = []

    def _known(self) -> dict[str, dict[str, Any]]:
        """Return what was noted, without what is damaged."""
        with suppress(RunError):
            found = self.directory.json(FILE)
            entries = {name: known for name, known in found.items() if isinstance(known, dict)}
            return {name: known for name, known in entries.items() if _is_name(known.get("known_as"))}
        return {}

    def _note(self, boards: Sequence[OpenBoard], *, opened: bool) -> None:
        states = {
            board.name: {"known_as": board.version, "open": opened} for board in boards if board.version
        }
        try:
            if states:
                self.directory.write_json(FILE, self._known() | states)
        except RunError as error:
            log.warning("%s", error)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
