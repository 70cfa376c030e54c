"""How the cells of a sweep stand, as their run directories say: nothing is kept anywhere else."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, final

from anomaly_lab.config.building import built
from anomaly_lab.errors import RunError, UserError, mendable
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.identity import Identity
from anomaly_lab.runs.lock import is_held
from anomaly_lab.runs.reading import one_line
from anomaly_lab.sweeps.plan import SweepCell


@final
class Standing(StrEnum):
    """What became of a run."""

    DONE = "done"
    STALE = "made from something else"  # done, but from other data, weights or code than there are now
    UNSEEN = "done, of what cannot be read"  # its data, weights or code are not there to be compared
    FAILED = "failed"
    BUSY = "in work elsewhere"  # a living process has it
    OPEN = "to do"  # was not begun, or was broken off


class State(NamedTuple):
    """Where a run stands.

    Attributes:
        line: why it is not done, if it says so.
        attempt: names what has failed; another attempt has another name.
        began: false for what failed before it began, which a sweep always tries again.
    """

    standing: Standing
    line: str = ""
    attempt: str = ""
    began: bool = True

    def wants_a_run(self, cell: SweepCell) -> bool:
        """Say whether a sweep does the cell."""
        again = self.standing is Standing.FAILED and (cell.retry or not self.began)
        return self.standing is Standing.OPEN or again


def state_of(directory: RunDirectory) -> State:
    """Say how a run stands; one that cannot be read has failed."""
    try:
        manifest = directory.manifest()
    except RunError as error:
        return State(Standing.FAILED, str(error))
    status = manifest.get("status")
    if status == "done":
        return State(Standing.DONE)
    if is_held(directory.path):
        return State(Standing.BUSY, "another process works on it")
    if status == "failed":
        began = bool(manifest.get("began", True))
        return State(Standing.FAILED, one_line(manifest.get("error")), str(manifest.get("started")), began)
    return State(Standing.OPEN)


def states_of(cells: Sequence[SweepCell]) -> dict[Path, State]:
    """Return how the run of each cell stands, by the path of its directory.

    What is done is compared with the data, weights and own code that are there now, whose files are read once
    for all cells that are made from the same.
    """
    directories = {cell.directory.path: cell.directory for cell in cells}
    states = {path: state_of(directory) for path, directory in directories.items()}
    done = [cell for cell in cells if states[cell.directory.path].standing is Standing.DONE]
    return states | dict(_doubted(done))


def _doubted(cells: Sequence[SweepCell]) -> Iterator[tuple[Path, State]]:
    """Yield those of the done runs that would be others if they were run now, or of which that is unknown."""
    known: dict[str, dict[str, Any] | str] = {}
    for cell in cells:
        if cell.made_from not in known:
            try:
                known[cell.made_from] = _made_from(cell)
            except UserError as error:
                known[cell.made_from] = str(error)
        made_from = known[cell.made_from]
        if isinstance(made_from, str):
            yield cell.directory.path, State(Standing.UNSEEN, made_from)
            continue
        try:
            cell.directory.wants_a_run(made_from, retry=False)
        except UserError as error:
            yield cell.directory.path, State(Standing.STALE, str(error))


def _made_from(cell: SweepCell) -> dict[str, Any]:
    """Return what a run of the cell would be made from. UserError: its data or weights cannot be read."""
    checked = cell.family.checked(cell.values)
    cfg = cell.family.composed(cell.values)
    try:
        data = built(cfg.data)
        return Identity.of(checked.hashes, cfg.seed, checked.weights, checked.own_modules, data).made_from
    except Exception as error:
        if (cause := mendable(error)) is not None:  # Hydra wraps what a constructor raises
            raise cause from error
        raise
