"""One sweep: what is to be done is said, done by a launcher, and told at the end as the runs have it."""

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher

from anomaly_lab.config.messages import BUSY
from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import labelled_anomalies
from anomaly_lab.runs.lock import one_sweep, works_beside
from anomaly_lab.runs.provenance import COMMAND, command
from anomaly_lab.runs.reading import one_line
from anomaly_lab.sweeps.plan import SweepCell, check_categories
from anomaly_lab.sweeps.states import Standing, State, state_of, states_of
from anomaly_lab.sweeps.table import Outcome, closing_table

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0  # between two looks at what a launcher's other processes have done
LISTED = 10  # lines on runs that are not done

States = Mapping[Path, State]


def swept(cells: Sequence[SweepCell], launcher: Launcher) -> int:
    """Do what is not done, and print how all stand; return the exit code."""
    before = states_of(cells)
    todo = _once_each(cells, before)
    check_categories(todo)
    log.info("%s", plan_line(before, len(todo)))
    after = launched(cells, before, launcher)
    show_table(cells, after)
    return told(after, todo)


def told(states: States, tried: Sequence[SweepCell]) -> int:
    """Say what is not done; return the exit code: 0, 1, or 75 if all else is done but what others work on."""
    for line in left_over(states, tried):
        print(f"anomaly_lab: {line}", file=sys.stderr)
    standings = {state.standing for state in states.values()}
    return 0 if standings <= {Standing.DONE} else BUSY if standings <= {Standing.DONE, Standing.BUSY} else 1


def launched(cells: Sequence[SweepCell], before: States, launcher: Launcher) -> States:
    """Have a launcher do what is not done; return how the runs stand then.

    Cells that are one run are done once. What the launcher returns does not count: it may have lost a process
    or the sight of one. The run directories tell.
    """
    todo = _once_each(cells, before)
    with one_sweep():
        if isinstance(launcher, BasicLauncher):
            _one_by_one(launcher, todo, before)
        elif todo:
            _at_once(launcher, todo)
    directories = {cell.directory.path: cell.directory for cell in cells}
    return {
        path: state if state.standing in {Standing.STALE, Standing.UNSEEN} else state_of(directories[path])
        for path, state in before.items()
    }


def _once_each(cells: Sequence[SweepCell], states: States) -> list[SweepCell]:
    """Return the cells that want a run, the first of those that are the same."""
    wanted: dict[Path, SweepCell] = {}
    for cell in cells:
        if states[cell.directory.path].wants_a_run(cell):
            wanted.setdefault(cell.directory.path, cell)
    return list(wanted.values())


def plan_line(states: States, todo: int) -> str:
    """Return how many runs stand how, before any begins."""
    counts = Counter(state.standing for state in states.values())
    others = [f"{counts[one]} {one}" for one in Standing if counts[one] and one is not Standing.OPEN]
    return f"sweep: {', '.join([f'{len(states)} runs, all valid', *others, f'{todo} to do'])}"


def left_over(states: States, todo: Sequence[SweepCell]) -> Iterator[str]:
    """Yield what is not done and what to do about it, a line each; errors that this sweep met were told."""
    tried = {cell.directory.path for cell in todo}
    of = {one: [path for path, state in states.items() if state.standing is one] for one in Standing}
    failed_before = [path for path in of[Standing.FAILED] if path not in tried]
    lines = [states[path].line for path in of[Standing.STALE]]
    for path in failed_before:
        line = states[path].line
        lines.append(line if line.startswith(str(path)) else f"{path}: failed before: {line}")
    yield from lines[:LISTED]
    if len(lines) > LISTED:
        yield f"and {len(lines) - LISTED} more"
    if unseen := of[Standing.UNSEEN]:
        why = "; ".join(dict.fromkeys(states[path].line for path in unseen))
        said = "runs are done, but cannot be compared with their data"
        yield f"{len(unseen)} of {len(states)} {said}: {one_line(why)}"
    early = [path for path in of[Standing.FAILED] if not states[path].began]
    counts = {
        "failed before they began; the same command tries them again": len(early),
        "failed; retry=failed tries them again": len(of[Standing.FAILED]) - len(early),
        "were made from something else; give tag=NAME, or remove them": len(of[Standing.STALE]),
        "are not done, as their process ended; the same command does them": len(of[Standing.OPEN]),
        "skipped, as other processes work on them; give the same command again later": len(of[Standing.BUSY]),
    }
    yield from (f"{count} of {len(states)} runs {said}" for said, count in counts.items() if count)


def _one_by_one(launcher: BasicLauncher, todo: Sequence[SweepCell], before: States) -> None:
    """Do each cell as Hydra's own launcher would, but for composing its config, which the plan has done.

    What another process has done in the meantime is passed over.
    """
    setup_globals()
    assert launcher.hydra_context is not None
    assert launcher.task_function is not None
    began = time.monotonic()
    for number, cell in enumerate(todo):
        state = state_of(cell.directory)
        was = before[cell.directory.path].attempt
        failed_since = state.standing is Standing.FAILED and state.attempt != was
        if not state.wants_a_run(cell) or failed_since:
            continue
        left = _left(began, number, len(todo))
        log.info("[%d of %d%s] %s", number + 1, len(todo), left, " ".join(cell.overrides))
        job = run_job(
            hydra_context=launcher.hydra_context,
            task_function=launcher.task_function,
            config=cell.family.job(cell.values, number),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if isinstance(job._return_value, BrokenPipeError):  # nobody reads what is said
            raise job._return_value


def _at_once(launcher: Launcher, todo: Sequence[SweepCell]) -> None:
    os.environ[COMMAND] = command()  # by which the workers know it
    with _watched(todo):
        try:
            launcher.launch([cell.overrides for cell in todo], initial_job_idx=0)
        except Exception as error:  # each launcher has its own for a process that was killed
            said = f"the launcher ended: {type(error).__name__}: {one_line(error)}"
            print(f"anomaly_lab: error: {said}", file=sys.stderr)
            _wait_for_others(todo)
        finally:
            del os.environ[COMMAND]


def _wait_for_others(todo: Sequence[SweepCell]) -> None:
    """Wait for the processes of this sweep that a launcher has left alone as another was killed."""
    quiet = 0
    while quiet < 2:  # one may just be between two cells
        time.sleep(LOOK_SECONDS / 2)
        alive = any(works_beside(cell.directory.path) for cell in todo)
        quiet = 0 if alive else quiet + 1


@contextmanager
def _watched(todo: Sequence[SweepCell]) -> Iterator[None]:
    """Say every now and then how many cells are done, as their directories have it, while the body runs."""
    ended = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        open_cells = list(todo)
        while not ended.wait(LOOK_SECONDS):
            unfinished = {Standing.OPEN, Standing.BUSY}
            still = [cell for cell in open_cells if state_of(cell.directory).standing in unfinished]
            if len(still) < len(open_cells):
                done = len(todo) - len(still)
                log.info("[%d of %d%s]", done, len(todo), _left(began, done, len(todo)))
            open_cells = still

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _left(began: float, done: int, of: int) -> str:
    """Return about how long the rest takes, if that can be told."""
    if not done or done == of:
        return ""
    seconds = (time.monotonic() - began) / done * (of - done)
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f", about {seconds / size:.1f} {unit} left"
    return f", about {seconds:.0f} s left"


def show_table(cells: Sequence[SweepCell], states: States) -> None:
    """Print a row for each configuration, if there are several cells and any is done."""
    outcomes = []
    for cell in cells:
        given = dict(word.partition("=")[::2] for word in cell.overrides)
        metrics = None
        doubts = 0
        anomalies = 0
        if states[cell.directory.path].standing in {Standing.DONE, Standing.UNSEEN}:
            try:
                metrics = cell.directory.metrics()
                doubts = len(cell.directory.doubts())
                anomalies = labelled_anomalies(cell.directory.manifest())
            except RunError as error:
                log.warning("%s", error)
        outcomes.append(Outcome(given, cell.seed, metrics, doubts, anomalies))
    rows = {tuple(outcome.given.items()) for outcome in outcomes}
    if len(rows) > 1 and any(outcome.metrics for outcome in outcomes):
        with suppress(BrokenPipeError):  # the exit code is still to come
            print(closing_table(outcomes), flush=True)
