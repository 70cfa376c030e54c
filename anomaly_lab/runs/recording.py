"""What a run directory says of a run, and when: running, then done or failed, with the numbers in between."""

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, final

from anomaly_lab.errors import BusyError, RunError, mendable
from anomaly_lab.evaluation.collect import Scored
from anomaly_lab.evaluation.definitions import versions_of
from anomaly_lab.evaluation.doubts import shown
from anomaly_lab.evaluation.evaluate import Numbers
from anomaly_lab.evaluation.robustness import Cell
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import locked

log = logging.getLogger(__name__)
OURS = logging.getLogger("anomaly_lab")


class Finished(NamedTuple):
    """A run that is done, now or before."""

    metrics: dict[str, float]
    path: Path  # of the run directory
    doubts: Sequence[str] = ()  # what makes the metrics doubtful, a line each


@contextmanager
def recording(
    directory: RunDirectory,
    config: str,
    overrides: Sequence[str],
    manifest: dict[str, Any],
    *,
    resume: bool,
) -> Iterator[None]:
    """Keep the manifest's status true while the body runs; run.log gets what is logged.

    A body that raises leaves ``failed`` with the error; an interrupt leaves ``interrupted``, to be gone on
    with, and so does a process that is killed, but for its status, which stays ``running``.

    Args:
        directory: held by this process.
        config: what config.yaml shall hold.
        overrides: as they were given.
        manifest: what is known of the run before it begins, as plain types.
        resume: whether a training that was broken off is gone on with; else what it left is removed.
    """
    if not resume:
        directory.forget_training()
    origin = directory.manifest().get("trained_in") if directory.checkpoint.exists() else None
    known = {"status": "running"} | manifest | ({} if origin is None else {"trained_in": origin})
    directory.clear()
    directory.write("config.yaml", config)
    directory.write("overrides.txt", "\n".join(overrides) + "\n")
    directory.write_json("manifest.json", known)
    began = time.monotonic()
    with _logged(directory.path / "run.log") as journal:
        try:
            yield
            seconds = round(time.monotonic() - began, 1)
            directory.note(status="done", seconds=seconds)
        except Exception as error:
            journal.emit(logging.makeLogRecord({"msg": traceback.format_exc()}))  # for this file alone
            _note(directory, status="failed", error=_said(error))
            raise
        except BaseException:  # Ctrl-C, SIGTERM
            _note(directory, status="interrupted")
            log.warning("%s: interrupted; %s", directory.path, _way_on(directory))
            raise
        log.info("%s: done in %.1f s%s", directory.path, seconds, listed(directory))


@contextmanager
def early_failures_kept(directory: RunDirectory, manifest: dict[str, Any], *, keep: bool) -> Iterator[None]:
    """Keep why a run of a sweep failed if that was before it began, as its data could not be read.

    A directory that holds a run already, or that another process works on, is left as it is.

    Args:
        directory: held by nobody yet.
        manifest: what is known of the run, as plain types.
        keep: whether it is done at all; a run alone tells who asked for it, and leaves nothing.
    """
    try:
        yield
    except BusyError:
        raise
    except Exception as error:
        with suppress(RunError):  # what cannot be written is not why the run failed
            if keep:
                with locked(directory.path):
                    found = directory.manifest()  # another process may have done it in the meantime
                    if not found or found.get("began") is False:
                        directory.write("run.log", traceback.format_exc())
                        facts = {"status": "failed", "began": False, "error": _said(error)}
                        directory.write_json("manifest.json", manifest | facts)
        raise


def _said(error: Exception) -> str:
    cause = mendable(error) or error  # Hydra wraps what a constructor raises
    return f"{type(cause).__name__}: {cause}"


@contextmanager
def _logged(file: Path) -> Iterator[logging.Handler]:
    """Let a file get what is logged while the body runs."""
    journal = Journal(file)
    journal.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    OURS.addHandler(journal)
    level = OURS.level
    OURS.setLevel(logging.INFO)  # outside the command line nobody else asks for it
    try:
        yield journal
    finally:
        OURS.setLevel(level)
        OURS.removeHandler(journal)
        with suppress(OSError):  # a full disk, of which more was said
            journal.close()


@final
class Journal(logging.FileHandler):
    """run.log; a disk that is full costs lines of it, and no more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Go on without this line."""


def _note(directory: RunDirectory, **facts: str) -> None:
    """Note how the run ended, but let that stand behind why it did."""
    try:
        directory.note(**facts)
    except RunError as error:
        log.warning("%s", error)


def _way_on(directory: RunDirectory) -> str:
    if directory.checkpoint.exists():
        return "the training is kept; the same command tests it"
    if directory.resume_checkpoint.exists():
        return "a state of its training is kept; the same command goes on from it"
    return "the same command starts it anew"


def record(directory: RunDirectory, scored: Scored, numbers: Numbers, cells: Sequence[Cell]) -> None:
    """Write metrics.json, curves.npz, predictions.csv, and maps and poisoned copies where there are any."""
    directory.write_json("metrics.json", numbers.metrics)
    directory.note(doubts=numbers.doubts, metric_versions=versions_of(numbers.metrics))
    directory.write_arrays("curves.npz", numbers.curves)
    pairs = list(zip(scored.records, scored.scores, strict=True))
    rows = [
        (record.image.as_posix(), record.defect, int(record.label), float(score)) for record, score in pairs
    ]
    directory.write_table("predictions.csv", ("path", "defect", "label", "score"), rows)
    if scored.maps is not None:
        directory.write_arrays(
            "maps/maps.npz", {f"{row:05d}": found for row, found in enumerate(scored.maps)}
        )
    if cells:
        clean = ("clean", 0, numbers.metrics["image_auroc"], numbers.metrics["image_ap"])
        summary = [clean, *((cell.family, cell.severity, cell.auroc, cell.ap) for cell in cells)]
        directory.write_table("poison.csv", ("family", "severity", "image_auroc", "image_ap"), summary)
        copies = [
            (record.image.as_posix(), cell.family, cell.severity, int(record.label), float(score))
            for cell in cells
            for record, score in zip(scored.records, cell.scores, strict=True)
        ]
        header = ("path", "family", "severity", "label", "score")
        directory.write_table("poison_predictions.csv", header, copies)


def listed(directory: RunDirectory) -> str:
    """Lay out the metrics and what makes them doubtful, a line each, for the log."""
    metrics = [f"\n  {name:26s} {value:.4f}" for name, value in directory.metrics().items()]
    doubts = [f"\n  {line}" for line in shown(directory.doubts())]
    return "".join(metrics + doubts)


def finished(directory: RunDirectory, *, before: bool) -> Finished:
    """Return a run that is done, and say so if it was done before it was asked for."""
    if before:
        way_out = "finished before, skipped; to do it again, remove the folder"
        log.info("%s: %s%s", directory.path, way_out, listed(directory))
    return Finished(directory.metrics(), directory.path, directory.doubts())
