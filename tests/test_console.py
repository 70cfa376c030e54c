"""The command line and its shell: what it imports, a reader that has enough, a line to be completed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from anomaly_lab import __main__ as cli
from tests.support.runs import on_tree
from tests.support.trees import mvtec_tree

CHECKOUT = Path(__file__).parent.parent


def test_help_shows_groups_and_config_imports_no_torch_and_writes_nothing(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "anomaly_lab", "--help", "model=nearest"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not {"torch", "numpy", "lightning", "anomaly_lab.train"} & imported
    options = "trainer: cpu, ddp, debug, default, gpu, gpu_bf16, mps\n"
    for text in ("python -m anomaly_lab", options, "experiment=NAME", "fpr_limit: 0.3", "gallery "):
        assert text in done.stdout
    assert not list(tmp_path.iterdir())


def unread(words: Sequence[str], *options: str) -> tuple[int, str]:
    """Return the exit code and the errors of a process whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    unlike = {"PYTHONUNBUFFERED", "HYDRA_FULL_ERROR"}  # which tests in this process may have set
    own = {name: value for name, value in os.environ.items() if name not in unlike}
    command = [sys.executable, *options, "-m", "anomaly_lab", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=own, check=False)
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--cfg", "job"]])
@pytest.mark.parametrize("options", [["-u"], []])
def test_a_closed_pipe_ends_it_quietly(words, options):
    assert unread(words, *options) == (0, "")


@pytest.mark.long
def test_a_pipe_that_closes_on_a_verb_ends_it_quietly(tmp_path):
    words = ["check", *on_tree(mvtec_tree(tmp_path / "data", train=16))]
    assert unread(words) == (0, "")


@pytest.mark.long
def test_a_sweep_goes_on_when_nobody_reads_and_its_exit_code_tells_of_a_failure(tmp_path):
    tree = mvtec_tree(tmp_path / "data")
    words = ["-m", "model=nearest", *on_tree(tree), f"runs={tmp_path / 'runs'}", "data.image_size=32,48"]
    code, errors = unread(words, "-u")
    assert code == 0
    assert all(line.startswith("training") for line in errors.splitlines() if line)
    (tree / "part/test/good/000.png").write_bytes(b"no image")
    code, errors = unread([*words, "tag=again"])
    assert code == 1
    assert "000.png" in errors
    assert "Traceback" not in errors
    states = [json.loads(file.read_text())["status"] for file in tmp_path.glob("runs/*/*/*/*/manifest.json")]
    assert sorted(states) == ["done"] * 2 + ["failed"] * 2


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("anomaly-lab check data=folder data.ab", "anomaly-lab data=folder data.ab"),
        ("anomaly-lab gallery  synthesis=", "anomaly-lab synthesis="),
        ("anomaly-lab model=check ", "anomaly-lab model=check "),
    ],
)
def test_a_verb_is_no_key_to_complete(line, left, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    cli.without_verb_in_completion()
    assert (os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])) == (left, len(left))
