"""What a run says of itself: its manifest while it goes on and after it, its log, its origin."""

import logging
import subprocess
from pathlib import Path

import pytest

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.recording import recording
from tests.runs.small_runs import control, manifest
from tests.support.runs import CHECKOUT, ran
from tests.support.trees import mvtec_tree


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


def test_the_manifest_tells_where_the_numbers_come_from(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree), "seed=3", "tag=mine", "tags=[a,b]")
    found = manifest(path)
    assert path.name.startswith("mine-")
    assert path.name.endswith("-seed3")
    assert path.parent == tmp_path / "runs" / "nearest" / "mvtec" / "part"
    options = {"synthesis": "none", "trainer": "default", "logger": "csv"}
    assert found["choices"] == {"model": "nearest", "data": "mvtec", **options}
    assert found["config_hash"].startswith(path.name.split("-")[1])
    assert found["counts"] == {
        "train": 6,
        "normal": 0,
        "test": 6,
        "anomalies": 0,
        "anomalous": 3,
        "masks_cut": 0,
        "masks_with_lost_regions": 0,
        "unmasked": 0,
        "left_out": 0,
    }
    assert found["differs"]["data.image_size"] == 16
    assert not {"seed", "tag", "tags", "runs", "data.root"} & found["differs"].keys()
    assert (found["tag"], found["tags"], found["seed"]) == ("mine", ["a", "b"], 3)
    origin = {"command", "git_commit", "git_dirty", "versions", "hardware", "data_fingerprint", "seconds"}
    assert origin <= found.keys()


def test_the_commit_is_that_of_the_checkout(tree, tmp_path):
    if not (CHECKOUT / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert manifest(ran(tmp_path, *control(tree))[1])["git_commit"] == commit


def test_the_overrides_are_kept_as_they_were_given(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree), "seed=3")
    given = [f"runs='{tmp_path}/runs'", *control(tree), "seed=3"]
    assert (path / "overrides.txt").read_text().splitlines() == given


def recorded(directory: RunDirectory, error: BaseException | None) -> list[str]:
    """Record a body that logs a line and raises; return the statuses that a reader saw."""
    seen = []
    with recording(directory, "config", ["a=1"], {"tag": "t"}, resume=True):
        seen.append(directory.manifest()["status"])
        logging.getLogger("anomaly_lab.somewhere").warning("within")
        if error is not None:
            raise error
    return seen


def test_the_status_is_running_then_done(tmp_path):
    directory = RunDirectory(tmp_path)
    assert recorded(directory, None) == ["running"]
    logging.getLogger("anomaly_lab").warning("after it")
    assert directory.manifest().keys() == {"tag", "status", "seconds"}
    assert directory.manifest()["status"] == "done"
    assert (tmp_path / "config.yaml").read_text() == "config"
    log = (tmp_path / "run.log").read_text()
    assert " within\n" in log
    assert "after it" not in log


def test_a_body_that_raises_leaves_failed_and_the_traceback_in_the_log(tmp_path, capsys):
    with pytest.raises(ValueError, match="tired"):
        recorded(RunDirectory(tmp_path), ValueError("tired"))
    assert manifest(tmp_path) == {"tag": "t", "status": "failed", "error": "ValueError: tired"}
    log = (tmp_path / "run.log").read_text()
    assert "Traceback" in log
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("kept", "way_on"),
    [("model.ckpt", "tests it"), ("resume.ckpt", "goes on from it"), (".resume.ckpt.part", "starts it anew")],
)
def test_an_interrupt_says_what_is_kept(kept, way_on, tmp_path):
    (tmp_path / kept).touch()
    with pytest.raises(KeyboardInterrupt):
        recorded(RunDirectory(tmp_path), KeyboardInterrupt())
    assert manifest(tmp_path)["status"] == "interrupted"
    assert (tmp_path / "run.log").read_text().endswith(f"{way_on}\n")
    assert logging.getLogger("anomaly_lab").handlers == []
    assert not list(tmp_path.glob(".*.part"))


def test_a_full_disk_hides_no_reason(tmp_path, monkeypatch, capsys):
    def full(self, **facts):
        raise RunError("manifest.json: cannot be written")

    monkeypatch.setattr(RunDirectory, "note", full)
    monkeypatch.setattr(logging.FileHandler, "flush", lambda self: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(ValueError, match="tired"):
        recorded(RunDirectory(tmp_path), ValueError("tired"))
    assert "Logging error" not in capsys.readouterr().err


@pytest.mark.parametrize("trained", [False, True])
def test_where_the_weights_came_from_is_kept_as_long_as_they_are_there(tmp_path, trained):
    directory = RunDirectory(tmp_path)
    directory.write_json("manifest.json", {"status": "running", "trained_in": "another"})
    if trained:
        directory.checkpoint.touch()
    recorded(directory, None)
    assert directory.manifest().get("trained_in") == ("another" if trained else None)
