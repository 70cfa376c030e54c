"""Sweeps whose jobs a launcher does in other processes: their outcome is known, and one run is done once."""

import os
import time

import pytest

from anomaly_lab.errors import DataError
from anomaly_lab.runs import lock
from anomaly_lab.runs.provenance import COMMAND, command, provenance
from anomaly_lab.sweeps import sweep as sweeps
from tests.support import forking
from tests.sweeps.sweeping import directories, rows, runs, sweep  # noqa: F401 - fixtures


@pytest.fixture
def launcher(monkeypatch) -> str:
    monkeypatch.setattr(sweeps, "LOOK_SECONDS", 0.02)
    return forking.register()


def test_jobs_in_other_processes_count_for_the_exit_code_and_stand_in_the_table(sweep, runs, capfd, launcher):  # noqa: F811
    runs.early = {2: DataError("bad")}
    assert sweep(launcher, "seed=1,2,3", "data.category=part,other") == 1
    said = capfd.readouterr()
    assert rows(said.out, 3) == [
        ["data.category", "n", "image_auroc"],
        ["part", "2", "0.200", "±", "0.141"],
        ["other", "2", "0.200", "±", "0.141"],
    ]
    assert sorted(said.err.splitlines()) == [
        "anomaly_lab: 2 of 6 runs failed before they began; the same command tries them again",
        *["anomaly_lab: error: bad"] * 2,
    ]
    assert forking.ForkingLauncher.ended == [0, 0, 1, 1, 0, 0]
    runs.early = {}
    assert sweep(launcher, "seed=1,2,3", "data.category=part,other") == 0
    assert lock.SWEEP not in os.environ


def test_what_a_killed_worker_was_to_do_is_told_and_done_by_the_same_command(sweep, runs, capfd, launcher):  # noqa: F811
    runs.raises = Killing({2: None})
    assert sweep(launcher, "seed=1,2,3") == 1
    assert "1 of 3 runs are not done, as their process ended" in capfd.readouterr().err
    runs.raises = {}
    assert sweep(launcher, "seed=1,2,3") == 0
    said = capfd.readouterr()
    assert "sweep: 3 runs, all valid, 2 done, 1 to do" in said.out


class Killing(dict):
    """Kills the process that looks up one of its seeds."""

    def __getitem__(self, seed: int) -> BaseException:
        os.kill(os.getpid(), 9)
        return super().__getitem__(seed)


def test_a_launcher_that_breaks_is_told_and_what_was_done_counts(sweep, runs, capfd, launcher, monkeypatch):  # noqa: F811
    launch = forking.ForkingLauncher.launch

    def breaks(self, job_overrides, initial_job_idx):
        launch(self, job_overrides[:1], initial_job_idx)
        raise RuntimeError("a worker\nwas killed")

    monkeypatch.setattr(forking.ForkingLauncher, "launch", breaks)
    assert sweep(launcher, "seed=1,2") == 1
    said = capfd.readouterr().err
    assert said.splitlines() == [
        "anomaly_lab: error: the launcher ended: RuntimeError: a worker was killed",
        "anomaly_lab: 1 of 2 runs are not done, as their process ended; the same command does them",
    ]


def test_how_far_other_processes_are_is_said(sweep, runs, capfd, launcher, monkeypatch, tmp_path):  # noqa: F811
    launch = forking.ForkingLauncher.launch

    def slow(self, job_overrides, initial_job_idx):
        launch(self, job_overrides[:2], initial_job_idx)
        time.sleep(0.3)
        return launch(self, job_overrides[2:], initial_job_idx)

    monkeypatch.setattr(forking.ForkingLauncher, "launch", slow)
    assert sweep(launcher, "seed=1,2,3") == 0
    assert "[2 of 3, about " in capfd.readouterr().out
    assert len(directories(tmp_path / "work")) == 3


def test_the_processes_of_a_launcher_know_the_command_that_began_the_sweep(
    sweep,  # noqa: F811
    runs,  # noqa: F811
    capfd,
    launcher,
    monkeypatch,
):
    runs.metrics = lambda cfg: {"image_auroc": float(os.environ.get(COMMAND) == command())}
    assert sweep(launcher, "seed=1,2") == 0
    assert rows(capfd.readouterr().out, 1) == [["2", "1.000", "±", "0.000"]]
    assert COMMAND not in os.environ
    monkeypatch.setenv(COMMAND, "python -m anomaly_lab -m seed=1,2")
    assert provenance("cpu")["command"] == "python -m anomaly_lab -m seed=1,2"
