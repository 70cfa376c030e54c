"""What a GPU is asked still runs, on a CPU and on inputs so small that its numbers say nothing."""

import json

import pytest
import torch

from tests.gpu.__main__ import main

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    assert main(["--tiny", "--keep", str(folder)]) == 0
    return folder


def test_every_part_is_in_the_json(kept):
    found = json.loads((kept / "gpu.json").read_text())
    assert found["tests"]["passed"] == 2
    assert found["tests"]["failed"] == []
    assert [(row["model"], row["mode"]) for row in found["steps"]] == [
        ("draem_small", "bf16"),
        ("draem_small", "float32"),
    ]
    assert all(row["share_of_peak"] > 0 for row in found["steps"])
    (training,) = found["trainings"]
    assert training["every_step_once"] is True
    assert 12 <= training["killed_at"] < training["steps"] == 24
    assert 0 <= training["metrics"]["image_auroc"] <= 1


def test_the_table_has_a_line_for_every_figure(kept):
    lines = (kept / "gpu.md").read_text().splitlines()
    assert "Tests: 2 passed, 0 failed, 0 skipped" in "\n".join(lines)
    assert sum(line.startswith("| draem_small |") for line in lines) == 3


def test_without_a_device_it_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("there is no CUDA device here; --tiny tries it on a CPU")
