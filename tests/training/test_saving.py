"""The state to resume from: saved whole or not at all, and never at the cost of the training."""

import csv
import logging
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomaly_lab.methods.draem import Draem
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.training import saving
from anomaly_lab.training.progress import Rows
from anomaly_lab.training.saving import Saving
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree: Path, model: str = "draem_small") -> list[str]:
    small = ["data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    return [f"model={model}", *on_tree(tree), *small]


@pytest.fixture
def small_files():
    """Call it with a size in bytes: no file can then become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_training_goes_on_without_a_state_that_could_not_be_saved(tree, tmp_path, small_files, caplog):
    length = ("trainer.max_steps=6", "trainer.save_minutes=0")
    _, path = ran(tmp_path / "first", *tiny(tree), *length)
    # Adam's state makes the other three times as large
    small_files(int((path / "model.ckpt").stat().st_size * 1.5))
    with caplog.at_level(logging.WARNING):
        _, path = ran(tmp_path / "second", *tiny(tree), *length)
    said = [record.getMessage() for record in caplog.records if "goes on without" in record.getMessage()]
    assert len(said) == 6
    assert "resume.ckpt: cannot be written (File too large)" in said[0]
    assert (path / "model.ckpt").exists()
    assert not list(path.rglob("*.part"))


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """A clock that a step moves by a second, and a save by three."""
    clock = SimpleNamespace(now=0.0, saved=[])
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def save(file: Path) -> None:
        file.touch()
        clock.now += 3
        clock.saved.append(clock.now)

    progress = SimpleNamespace(read=lambda: None)
    epoch = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False))
    loop = SimpleNamespace(epoch_loop=epoch)
    trainer = SimpleNamespace(save_checkpoint=save, should_stop=False, fit_loop=loop, global_step=1)
    method = Draem.__new__(Draem)
    vars(method)["_automatic_optimization"] = True
    watching = Saving(RunDirectory(tmp_path), 0.5, "hash", progress)
    for _ in range(200):
        clock.now += 1
        watching.on_train_batch_end(trainer, method, None, None, 0)
    assert clock.saved == [33, 96, 159]  # after half a minute, then after twenty times three seconds


def test_rows_that_a_full_disk_does_not_take_are_written_later(tmp_path, small_files, caplog):
    file = tmp_path / "training.csv"
    rows = Rows(file, [("step", "loss")])
    small_files(30)
    for step in range(1, 6):
        rows.add((step, "0.123456"))
    assert file.read_text().splitlines() == ["step,loss", "1,0.123456"]
    small_files(resource.RLIM_INFINITY)
    rows.add((6, "0.5"))
    rows.close()
    with file.open() as written:
        assert [row["step"] for row in csv.DictReader(written)] == ["1", "2", "3", "4", "5", "6"]
    assert len(caplog.records) == 1
    assert "training.csv: cannot be written (" in caplog.text
