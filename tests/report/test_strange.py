"""Folders of strangers: what cannot be looked into is told, and no name or number ends a report."""

import json
import os
import re

import pytest

from anomaly_lab.report.found import found
from anomaly_lab.verbs.report import work
from tests.report.folders import kept
from tests.support.fake_runs import fake_runs
from tests.support.runs import asked

NAME = os.fsdecode(b"a\xff\n\x1b[31mb")  # as a folder may be called whose name is no UTF-8


def reported(root, capsys):
    """Return all that a report of a folder prints and writes."""
    work(asked(f"runs='{root}'"))
    files = (root / ".report").iterdir()
    return {"printed": capsys.readouterr().out} | {file.name: file.read_text("utf-8") for file in files}


@pytest.mark.parametrize("part", ["padim", "padim/own", "padim/own/a", "padim/own/a/RUN"])
def test_a_folder_that_the_disk_refuses_is_told(tmp_path, part, monkeypatch):
    """As root, whom no mode keeps out."""
    kept(tmp_path, "nearest/own/a", image_auroc=0.5)
    run = kept(tmp_path, "padim/own/a", image_auroc=0.5)
    closed = tmp_path / part.replace("RUN", run.name)
    scandir, stat = os.scandir, os.stat

    def refuse(path):
        if str(path) == str(closed) or str(path) == str(closed / "manifest.json"):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: (refuse(path), scandir(path))[1])
    monkeypatch.setattr(os, "stat", lambda path, **more: (refuse(path), stat(path, **more))[1])
    runs, unreadable, _ = found(tmp_path)
    assert [one.model for one in runs] == ["nearest"]
    assert unreadable == [f"{closed}: cannot be looked into (Permission denied)"]


def test_numbers_too_large_for_anything_end_no_report(tmp_path, capsys):
    big = 10**400
    facts = {"seconds": big, "metric_versions": {"image_auroc": big}}
    kept(tmp_path, "padim/own/a", manifest=facts, image_auroc=1)
    kept(tmp_path, "padim/own/b", manifest={"seed": big}, image_auroc=0.5)
    kept(tmp_path, "padim/own/c", differs={"model.a": big}, image_auroc=1e299)
    kept(tmp_path, "padim/own/c", 1, differs={"model.a": big}, image_auroc=0.5)
    assert "| b        | " in reported(tmp_path, capsys)["printed"]


CHANGES = {
    "done": {"manifest.json": {"doubts": ["a\n\x1b[31mb"], "tag": "a\n\x1b[31mb"}},
    "failed": {"manifest.json": {"status": "failed", "error": "a\n\x1b[31mb"}},
    "no seed": {"manifest.json": {"seed": None}},
    "no doubts": {"manifest.json": {"doubts": 3}},
    "no versions": {"manifest.json": {"metric_versions": 3}},
    "no metrics": {"metrics.json": "{"},
    "no files": {"curves.npz": "{", "config.yaml": b"\xff", "figures/tsne.csv": "x", "maps": "{"},
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("level", range(4))
def test_a_folder_of_any_name_is_shown_without_what_a_terminal_obeys(tmp_path, capsys, level, what):
    """Wherever its name comes up: in tables, remarks, pictures, and lines on what cannot be read."""
    kept(tmp_path, "nearest/own/b", image_auroc=0.5)
    (plain,) = fake_runs(tmp_path / ".made", 1)
    for number, file in enumerate(sorted((plain / "maps").iterdir())):
        file.rename(file.with_name(f"{number:02}-highest-good-{NAME}.png"))
    for name, change in CHANGES[what].items():
        for file in (plain / name).iterdir() if name == "maps" else [plain / name]:
            file.unlink(missing_ok=True)
            content = {**MANIFEST, **change} if isinstance(change, dict) else change
            text = json.dumps(content) if isinstance(content, dict) else content
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
    parts = ["padim", "own", "a", "run-0-seed0"]
    parts[level] = NAME
    strange = tmp_path.joinpath(*parts)
    strange.parent.mkdir(parents=True)
    plain.rename(strange)
    made = reported(tmp_path, capsys)
    for text in made.values():
        assert "\x1b" not in text
        assert not re.search(r"(?<! \?)(?<!u001b)\[31mb", text)
    assert "[31mb" in made["report.html"]


MANIFEST = {"status": "done", "seed": 0, "tag": "run", "differs": {}}
