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


def test_the_links_of_wandb_and_a_link_to_the_run_are_left_alone(tmp_path):
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "latest-run").symlink_to("run-1")
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "link") as got:
        assert got
