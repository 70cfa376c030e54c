"""A training that was done is not done again, and the run that does without says whose weights it has."""

import csv
import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anomaly_lab.errors import RunError
from anomaly_lab.runs import lock, reuse
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import Holder, in_turn
from anomaly_lab.runs.reuse import take_weights, trained_once
from tests.runs.small_runs import manifest, tiny_draem
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


def test_keys_of_evaluation_take_the_trained_weights(tree, tmp_path):
    _, first = ran(tmp_path, *tiny_draem(tree))
    _, second = ran(tmp_path, *tiny_draem(tree), "model.scorer.kernel_size=3", "evaluation.fpr_limit=0.1")
    assert second != first
    assert manifest(second)["trained_in"] == first.name
    assert not (second / "training.csv").exists()
    a, b = (torch.load(p / "model.ckpt", weights_only=True)["state_dict"] for p in (first, second))
    assert all(torch.equal(a[k], b[k]) for k in a)
    _, third = ran(tmp_path, *tiny_draem(tree), "model.learning_rate=1e-3")
    assert "trained_in" not in manifest(third)


def test_the_log_says_whether_a_run_trains_and_how_often_the_gate_opened(tmp_path, caplog):
    root = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = ["model=prff_small", *on_tree(root), "data.image_size=64", "data.batch_size=2"]
    small += ["evaluation.overlays=2", "trainer=debug"]
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        ran(tmp_path, *small, "model.progressive.iterations=1")
        assert "trains from the start" in caplog.text
        assert "further passes" not in caplog.text
        caplog.clear()
        _, path = ran(tmp_path, *small, "model.progressive.iterations=3", "model.progressive.gate=open")
    assert "trains nothing: takes the weights of" in caplog.text
    with (path / "predictions.csv").open() as file:
        images = len(list(csv.DictReader(file)))
    said = f"progressive reconstruction: {images} of {images} test images (100%) got {2 * images} further"
    assert said in caplog.text


def finished(path: Path, **manifest: str) -> RunDirectory:
    directory = RunDirectory(path)
    directory.write_json("manifest.json", {"status": "done", "training_hash": "h", **manifest})
    torch.save(
        {"training_hash": "h", "state_dict": {"a": torch.ones(1)}, "of": path.name}, directory.checkpoint
    )
    return directory


def origin(directory: RunDirectory) -> str:
    return torch.load(directory.checkpoint, weights_only=True)["of"]


def test_only_finished_runs_with_the_same_training_give_their_weights(tmp_path):
    asking = RunDirectory(tmp_path / "asking")
    asking.write_json("manifest.json", {"status": "running", "training_hash": "h"})
    finished(tmp_path / "a", status="running")
    finished(tmp_path / "b", training_hash="other")
    finished(tmp_path / "c").checkpoint.unlink()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("damaged")
    take_weights(asking, "h")
    assert not asking.checkpoint.exists()
    assert "trained_in" not in asking.manifest()
    finished(tmp_path / "e")
    finished(tmp_path / "f")
    take_weights(asking, "h")
    assert origin(asking) == "e"
    assert asking.manifest()["trained_in"] == "e"


@pytest.mark.parametrize("manifest", ["null", "[1]", '{"a": NaN}', "[" * 100_000], ids=lambda text: text[:9])
def test_a_run_with_a_damaged_manifest_is_passed_over(manifest, tmp_path, caplog):
    (finished(tmp_path / "a").path / "manifest.json").write_text(manifest)
    finished(tmp_path / "b")
    asking = RunDirectory(tmp_path / "asking")
    take_weights(asking, "h")
    assert origin(asking) == "b"
    assert "manifest.json: is damaged" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"training_hash": "h"},
        {"training_hash": "h", "state_dict": [1]},
        {"training_hash": "h", "state_dict": {"a": 1}},
        {"training_hash": "h", "state_dict": {"a": torch.tensor([1, float("inf")])}},
        {"training_hash": "other", "state_dict": {}},
    ],
    ids=str,
)
def test_a_run_with_damaged_weights_is_passed_over(content, tmp_path, caplog):
    torch.save(content, finished(tmp_path / "a").checkpoint)
    finished(tmp_path / "b")
    asking = RunDirectory(tmp_path / "asking")
    take_weights(asking, "h")
    assert origin(asking) == "b"
    assert asking.manifest()["trained_in"] == "b"
    assert caplog.text.count("passed over: ") == 1


def test_who_took_weights_passes_on_the_name_of_who_trained_them(tmp_path):
    finished(tmp_path / "a", trained_in="removed since")
    asking = finished(tmp_path / "asking", status="running")
    take_weights(asking, "h")
    assert asking.manifest()["trained_in"] == "removed since"


def test_the_manifest_names_the_origin_before_the_weights_are_there(tmp_path, monkeypatch):
    finished(tmp_path / "a")
    asking = RunDirectory(tmp_path / "asking")
    asking.write_json("manifest.json", {"status": "running"})
    monkeypatch.setattr(reuse, "_copy", lambda trained, directory: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        take_weights(asking, "h")
    assert asking.manifest() == {"status": "running", "trained_in": "a"}


def test_the_weights_outlast_the_run_that_they_came_from(tmp_path):
    trained, asking = finished(tmp_path / "a"), RunDirectory(tmp_path / "asking")
    asking.path.mkdir()
    take_weights(asking, "h")
    trained.checkpoint.unlink()
    assert origin(asking) == "a"


def test_who_would_train_the_same_waits_and_takes_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.01)
    first, second = RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b")
    for directory in (first, second):
        directory.write_json("manifest.json", {"status": "running", "training_hash": "h"})
    waits, took = threading.Event(), list[str]()
    log = SimpleNamespace(info=lambda text, *_: waits.set() if "waits" in text else None)
    monkeypatch.setattr(reuse, "log", log)

    def other() -> None:
        with trained_once(second, "h"):
            took.append("takes" if second.checkpoint.exists() else "trains")

    thread = threading.Thread(target=other)
    with trained_once(first, "h"):
        assert not first.checkpoint.exists()
        thread.start()
        assert waits.wait(30)
        torch.save({"training_hash": "h", "state_dict": {}}, first.checkpoint)
        assert took == []  # not tested yet
        first.note(status="done")
    thread.join(30)
    assert took == ["takes"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    with trained_once(first, "h"), trained_once(second, "h"):  # nothing to train, nothing to wait for
        pass


def test_a_run_killed_once_its_weights_were_kept_leaves_no_lock_behind(tmp_path):
    directory = RunDirectory(tmp_path / "a")
    directory.write_json("manifest.json", {"status": "running", "training_hash": "h"})
    torch.save({"training_hash": "h", "state_dict": {}}, directory.checkpoint)
    left = tmp_path / ".training-h.lock"
    left.write_text(f"{Holder.this().host} 999999999")
    with trained_once(directory, "h"):
        assert not left.exists()
    with in_turn(left, lambda: None), trained_once(directory, "h"):  # a living process stands in its turn
        assert left.exists()


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_a_job_of_a_sweep_takes_what_another_one_made_of_the_same_run(ends, tmp_path, monkeypatch, caplog):
    """The other one began at the same time, as two jobs of a parallel launcher do."""
    wanted = ["model=nearest", *on_tree(mvtec_tree(tmp_path / "data")), "data.image_size=32"]
    wanted += ["evaluation.overlays=0", "evaluation.bootstrap=0"]
    metrics, path = ran(tmp_path, *wanted)
    made = manifest(path)
    before = (path / "model.ckpt").stat()
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    monkeypatch.setenv(lock.SWEEP, "one")
    held = threading.Event()

    def other() -> None:
        with lock.locked(path):
            RunDirectory(path).write_json("manifest.json", made | {"status": "running"})
            held.set()
            time.sleep(1)
            RunDirectory(path).write_json("manifest.json", made | {"status": ends, "error": "DataError: bad"})

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(30)
    caplog.clear()
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        if ends == "failed":
            with pytest.raises(
                RunError, match=r"failed before \(DataError: bad\); skipped, give retry=failed"
            ):
                ran(tmp_path, *wanted, sweeping=True)
        else:
            assert ran(tmp_path, *wanted, sweeping=True) == (metrics, path)
            assert "finished before, skipped" in caplog.text
    thread.join()
    assert "waits for another job of this sweep" in caplog.text
    assert (path / "model.ckpt").stat() == before
