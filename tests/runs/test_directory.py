"""The run directory: what each state found leads to, and that no file is left half written."""

import csv
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory
from tests.runs.small_runs import control, edit, manifest, tiny_draem
from tests.support.runs import ran
from tests.support.trees import mvtec_tree, write_png


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


@pytest.fixture
def small_files():
    """Call it with a size in bytes: no file can then become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# States


def test_a_finished_run_is_skipped_and_gives_its_metrics(tree, tmp_path):
    metrics, path = ran(tmp_path, *control(tree))
    assert manifest(path)["status"] == "done"
    edit(path, marker="untouched")
    again, same = ran(tmp_path, *control(tree))
    assert (again, same) == (metrics, path)
    assert manifest(path)["marker"] == "untouched"


def test_a_failed_run_runs_again_but_in_a_sweep_only_when_asked(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree))
    edit(path, status="failed", error="RunError: tired")
    with pytest.raises(RunError, match=r"failed before \(RunError: tired\); skipped, give retry=failed"):
        ran(tmp_path, *control(tree), sweeping=True)
    ran(tmp_path, *control(tree), "retry=failed", sweeping=True)
    assert manifest(path)["status"] == "done"
    edit(path, status="failed", error="RunError: tired")
    ran(tmp_path, *control(tree))
    assert manifest(path)["status"] == "done"


def test_a_broken_off_run_does_not_go_on_with_other_images(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    edit(path, status="running")
    write_png(tree / "part" / "train" / "good" / "extra.png", np.full((64, 64, 3), 7, np.uint8))
    with pytest.raises(RunError, match="another recipe or on other data"):
        ran(tmp_path, *tiny_draem(tree))
    ran(tmp_path, *tiny_draem(tree), "resume=false")
    assert manifest(path)["counts"]["train"] == 7


def test_resume_false_starts_afresh(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    first = torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
    edit(path, status="running")
    spoiled = torch.load(path / "model.ckpt", weights_only=True)
    spoiled["state_dict"] = {key: value * 0 for key, value in first.items()}
    torch.save(spoiled, path / "model.ckpt")
    ran(tmp_path, *tiny_draem(tree), "resume=false")
    again = torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("status", ["absent", "running", "failed", "done"])
@pytest.mark.parametrize("retry", [False, True])
def test_only_a_done_run_wants_none_and_a_failed_one_may_be_left_alone(tmp_path, status, retry):
    directory = RunDirectory(tmp_path)
    if status != "absent":
        directory.write_json("manifest.json", {"status": status, "error": "tired", "weights": []})
    if status == "failed" and not retry:
        with pytest.raises(RunError, match=r"failed before \(tired\); skipped, give retry=failed"):
            directory.wants_a_run({"weights": []}, retry=retry)
    else:
        assert directory.wants_a_run({"weights": []}, retry=retry) is (status != "done")


def test_a_done_run_that_was_made_from_something_else_is_named(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.write_json("manifest.json", {"status": "done", "data_fingerprint": "a", "weights": ["b"]})
    assert not directory.wants_a_run({"data_fingerprint": "a", "weights": ["b"], "later": 1}, retry=True)
    with pytest.raises(RunError) as caught:
        directory.wants_a_run({"data_fingerprint": "a", "weights": ["c"]}, retry=True)
    was = "weights changed (['b'] in the finished run, ['c'] now), so this would be another run"
    assert (
        str(caught.value) == f"{tmp_path}: {was}; give data.category=NAME or tag=NAME, or remove the folder"
    )


def test_a_damaged_manifest_is_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text('{"status": "do')
    with pytest.raises(RunError, match=r"manifest\.json: is damaged \(.*\); remove the folder to run again$"):
        RunDirectory(tmp_path).manifest()


# Files


def test_a_full_disk_gives_one_line_and_keeps_the_last_good_file(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path)
    directory.write("metrics.json", "{}")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"metrics\.json: cannot be written \(No space left on device\)"):
        directory.write("metrics.json", "half")
    assert (tmp_path / "metrics.json").read_text() == "{}"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_full_disk_is_one_line_and_the_last_good_file_is_kept(tmp_path, small_files):
    directory = RunDirectory(tmp_path)
    with directory.replacing("state.ckpt") as path, path.open("wb") as file:
        torch.save({"step": 1}, file)
    small_files(100_000)
    said = r"state\.ckpt: cannot be written \(File too large\); the last good file is kept"
    with (
        pytest.raises(RunError, match=said),
        directory.replacing("state.ckpt") as path,
        path.open("wb") as file,
    ):
        torch.save({"step": 2, "weights": torch.rand(1_000_000)}, file)
    assert torch.load(tmp_path / "state.ckpt", weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.ckpt"]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+x", "-x", "@x", "\t=1+1", "\r=1", "\n=1", " =1+1", "\ufeff=1", "\uff1d1", "'x", "'=1"],
)
def test_no_text_of_a_table_is_a_formula_and_each_is_read_back(text, tmp_path):
    RunDirectory(tmp_path).write_table("a.csv", ("path", "score"), [(f"/{text}.png", -0.5), (text, -1)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"path": f"/{text}.png", "score": "-0.5"}
    assert rows[1] == {"path": f"'{text}", "score": "-1"}
    assert rows[1]["path"].removeprefix("'") == text


def test_other_texts_of_a_table_stay_as_they_are(tmp_path):
    texts = ["good", "", "a=b", "/data/x.png", "3", "Ä", "x'", "(1)"]
    RunDirectory(tmp_path).write_table("a.csv", texts, [texts])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [texts, texts]


def test_two_writers_of_a_file_leave_it_whole_of_one_and_their_leftovers_are_cleared(tmp_path):
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    with second.replacing("report.html") as late:
        with first.replacing("report.html") as early:
            early.write_text("x" * 1000)
            late.write_text("y" * 10)
        assert (tmp_path / "report.html").read_text() == "x" * 1000
    assert (tmp_path / "report.html").read_text() == "y" * 10
    (tmp_path / "maps").mkdir()
    for folder in (tmp_path, tmp_path / "maps"):
        (folder / late.name).write_text("of a killed process")
    first.clear()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["maps", "report.html"]


def test_an_error_of_another_kind_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), RunDirectory(tmp_path).replacing("a"):
        raise RuntimeError("mine")
