"""One process at a time works on a run directory: a living holder keeps it, a dead one does not."""

import fcntl
import io
import logging
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from anomaly_lab.errors import BusyError, RunError
from anomaly_lab.runs import lock
from anomaly_lab.runs.lock import Holder, in_turn, locked


def hold(path: Path, held, done) -> None:
    with locked(path):
        held.set()
        done.wait(30)


def is_free(path: Path) -> bool:
    try:
        with locked(path):
            return True
    except BusyError:
        return False


def test_a_living_holder_makes_a_run_busy_and_a_dead_one_does_not(tmp_path):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, done))
    process.start()
    assert held.wait(timeout=30)
    with pytest.raises(BusyError, match=r"another process works on it; skipped, give the same command"):
        is_free(tmp_path) or locked(tmp_path).__enter__()
    process.kill()
    process.join()
    assert is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_fresh_heartbeat_of_another_host_makes_a_run_busy(tmp_path):
    (tmp_path / ".lock").write_text("otherhost 4711")
    with pytest.raises(BusyError, match="otherhost works on it, or did 0 s ago; skipped"):
        locked(tmp_path).__enter__()
    os.utime(tmp_path / ".lock", (1, 1))
    assert is_free(tmp_path)


@pytest.mark.parametrize(
    ("host", "boot", "free"), [("other", "ours", True), ("ours", "other", True), ("other", "other", False)]
)
def test_a_killed_holder_leaves_it_free_where_flock_reaches(host, boot, free, tmp_path):
    """A container that is started again has another host's name, a machine another boot."""
    here = Holder.this()
    if not here.boot:
        pytest.skip("this kernel says nothing of its boot")
    dead = Holder(here.host if host == "ours" else host, "4711", here.boot if boot == "ours" else boot)
    (tmp_path / ".lock").write_text(" ".join(dead))
    assert is_free(tmp_path) == free


@pytest.mark.parametrize(("ours", "theirs", "waits"), [("a", "a", True), ("a", "b", False), ("", "", False)])
def test_a_job_waits_for_another_one_of_its_sweep_alone(ours, theirs, waits, tmp_path, monkeypatch, caplog):
    """Also for one of another host, where only the file tells."""
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    monkeypatch.setenv(lock.SWEEP, ours)
    here = Holder.this()
    (tmp_path / ".lock").write_text(str(Holder("otherhost", "4711", "", theirs)))
    gone = threading.Timer(0.3, (tmp_path / ".lock").write_text, [""])
    gone.start()
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        assert is_free(tmp_path) is waits
    assert caplog.text.count("waits for another job of this sweep, which does the same run") == waits
    gone.join()
    assert str(here).split() == [here.host, here.pid, here.boot or "-", here.sweep or "-"]
    assert Holder.of(io.StringIO(str(here))) == here


def test_who_has_just_taken_a_lock_is_given_time_to_say_who_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    monkeypatch.setenv(lock.SWEEP, "a")
    (tmp_path / ".lock").write_text("")
    with (tmp_path / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = threading.Timer(0.3, (tmp_path / ".lock").write_text, [str(Holder.this())])
        ended = threading.Timer(0.8, fcntl.flock, [file, fcntl.LOCK_UN])
        said.start()
        ended.start()
        assert is_free(tmp_path)
        said.join()
        ended.join()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    said = r"runs/a: cannot be made \(Not a directory\); give another runs=FOLDER$"
    with pytest.raises(RunError, match=said), locked(tmp_path / "runs" / "a"):
        pass


NAMES = [
    ".lock",
    "training.csv",
    "run.log",
    ".model.ckpt.part",
    "manifest.json",
    "maps",
    "maps/a.png",
    "wandb",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["file", "folder", "nowhere", "pipe"])
def test_nothing_is_written_through_a_link_or_a_pipe(name, kind, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    entry = tmp_path / "run" / name
    entry.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(tmp_path / kind)
    with pytest.raises(RunError, match=rf"^{entry}: is a link, pipe or device"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "file").read_text() == "precious"
    assert [*(tmp_path / "folder").iterdir()] == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if "." in name])
def test_a_folder_by_the_name_of_a_file_is_one_line(name, tmp_path):
    (tmp_path / name / "something").mkdir(parents=True)
    said = rf"^{tmp_path / name}: is a folder, where a run keeps a file; remove it$"
    with pytest.raises(RunError, match=said), locked(tmp_path):
        pass
    assert (tmp_path / name / "something").is_dir()


def test_the_links_of_wandb_and_a_link_to_the_run_are_left_alone(tmp_path):
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "latest-run").symlink_to("run-1")
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "link"):
        assert (tmp_path / "run" / ".lock").read_text()


def test_who_waits_gets_it_in_turn_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.01)
    file, inside, most, said = tmp_path / "a.lock", list[int](), list[int](), list[str]()

    def work(number: int) -> None:
        for _ in range(5):
            with in_turn(file, lambda: said.append("waits")):
                inside.append(number)
                most.append(len(inside))
                threading.Event().wait(0.02)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 15
    assert said
    assert not file.exists()


def hold_in_turn(file: Path, held) -> None:
    with in_turn(file, lambda: None):
        held.set()
        threading.Event().wait(30)


def test_who_dies_is_waited_for_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.01)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold_in_turn, args=(tmp_path / "a.lock", held))
    process.start()
    assert held.wait(timeout=30)

    def kill() -> None:
        process.kill()
        process.join()

    with in_turn(tmp_path / "a.lock", kill):
        assert not process.is_alive()
