"""Where the numbers of a report come from."""

import json

import pytest

from anomaly_lab.report import remarks
from anomaly_lab.report.found import found
from anomaly_lab.report.run import Run
from tests.support import fake_runs


@pytest.fixture
def runs(tmp_path):
    """A folder of runs of two seeds and of two categories."""
    for category in ("bottle", "cable"):
        for seed in (0, 2):
            fake_runs._run(tmp_path, fake_runs.Plan("padim", category, seed, {}, 0.9), [], 0)
    return tmp_path


def test_the_commands_code_machine_time_and_seeds_are_told(runs):
    command = "python -m anomaly_lab model=padim data=mvtec data.category"
    assert list(remarks.on_origin(found(runs))) == [
        f"2 runs by: {command}=bottle",
        f"2 runs by: {command}=cable",
        "4 of commit 0123456789ab, with torch 2.14.1, on cpu: x86_64 x 2 threads",
        "4 min of runs in all; seeds 0, 2",
    ]


def test_changed_code_and_what_is_unknown_are_told(runs):
    first, second, *_ = sorted(runs.glob("*/*/*/*/manifest.json"))
    manifest = json.loads(first.read_text())
    first.write_text(json.dumps(manifest | {"git_dirty": True}))
    second.write_text(
        json.dumps(manifest | {"git_commit": None, "versions": 3, "seconds": "long", "command": 0})
    )
    lines = list(remarks.on_origin(found(runs)))
    assert "1 of commit 0123456789ab with changes, with torch 2.14.1, on cpu: x86_64 x 2 threads" in lines
    assert "1 of commit unknown, with torch unknown, on cpu: x86_64 x 2 threads" in lines
    assert Run.of(second.parent).origin.seconds == 0


def test_many_commands_are_counted(runs, monkeypatch):
    monkeypatch.setattr(remarks, "COMMANDS", 1)
    assert "and the rest by 1 more commands: see each run" in list(remarks.on_origin(found(runs)))
