"""One process at a time works on a run directory: a living holder keeps it, a dead one does not."""

import multiprocessing
import os
from pathlib import Path

import pytest

from anomaly_lab.errors import RunError
from anomaly_lab.runs.lock import locked


def hold(path: Path, held, done) -> None:
    with locked(path) as got:
        held.put(got)
        done.wait(30)


def test_a_living_holder_makes_a_run_busy_and_a_dead_one_does_not(tmp_path):
    context = multiprocessing.get_context("fork")
    held, done = context.Queue(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, done))
    process.start()
    assert held.get(timeout=30)
    with locked(tmp_path) as got:
        assert not got
    process.kill()
    process.join()
    with locked(tmp_path) as got:
        assert got
    with locked(tmp_path) as got:
        assert got


def test_a_fresh_heartbeat_of_another_host_makes_a_run_busy(tmp_path):
    (tmp_path / ".lock").write_text("otherhost 4711")
    with locked(tmp_path) as got:
        assert not got
    os.utime(tmp_path / ".lock", (1, 1))
    with locked(tmp_path) as got:
        assert got


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    said = r"runs/a: cannot be made \(Not a directory\); give another runs=FOLDER$"
    with pytest.raises(RunError, match=said), locked(tmp_path / "runs" / "a"):
        pass
