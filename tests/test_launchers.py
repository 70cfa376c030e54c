"""Sweeps whose jobs a launcher does in other processes: their outcome is known, and one run is done once."""

import os
import sys
import time
from types import SimpleNamespace

from anomaly_lab.config.composing import Composition
from anomaly_lab.errors import BusyError, DataError
from anomaly_lab.runs import lock
from tests.support import forking
from tests.test_main import main, root, runs  # noqa: F401 - fixtures


def test_jobs_in_other_processes_count_for_the_exit_code_and_stand_in_the_table(main, runs, capfd):  # noqa: F811
    launcher = forking.register()
    runs.raises = {2: DataError("bad")}
    assert main("-m", launcher, "seed=1,2,3", "model=nearest") == 1
    said = capfd.readouterr()
    assert [line.split() for line in said.out.rstrip().splitlines()[-4:]] == [
        ["seed", "image_auroc"],
        ["1", "1.0000"],
        ["2", "-"],
        ["3", "1.0000"],
    ]
    assert said.err == "anomaly_lab: error: bad\n"
    assert forking.ForkingLauncher.ended == [0, 0, 0]
    runs.raises = {2: BusyError("busy; skipped")}
    assert main("-m", launcher, "seed=1,2", "model=nearest") == 75
    assert "1 of 2 runs skipped" in capfd.readouterr().err
    runs.raises = {2: BrokenPipeError()}  # who reads that process's output left: not done is no success
    assert main("-m", launcher, "seed=1,2", "model=nearest") == 1
    assert lock.SWEEP not in os.environ


def test_jobs_that_are_one_run_are_done_in_turn_though_started_at_once(main, runs, monkeypatch, tmp_path):  # noqa: F811
    """As seed=0,0, and two values of a key that makes no other run; a process beside is not waited for."""
    folder = tmp_path / "run"
    monkeypatch.setattr(lock, "PATIENCE", 0.05)

    def run(asked: Composition) -> SimpleNamespace:
        with lock.locked(folder):
            with (folder / "began").open("a") as file:
                file.write("began ")
            time.sleep(0.3)
            with (folder / "began").open("a") as file:
                file.write("ended ")
        return SimpleNamespace(metrics={"image_auroc": 1.0}, doubts=())

    vars(sys.modules["anomaly_lab.train"])["run"] = run
    assert main("-m", forking.register(), "seed=0,0,0", "model=nearest") == 0
    assert (folder / "began").read_text().split() == ["began", "ended"] * 3
    with lock.locked(folder):  # by a process of no sweep
        assert main("-m", forking.register(), "seed=0,1", "model=nearest") == 75
