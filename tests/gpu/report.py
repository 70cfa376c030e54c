"""What is known so far, as one json and one table, kept after every figure."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from anomaly_lab.runs.provenance import provenance

Value = TypeVar("Value")
NO_VALUE = "–"


class Report:
    """A dict of the figures, written to ``gpu.json`` and ``gpu.md`` of a folder whenever one is added."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.found: dict[str, Any] = {
            key: value
            for key, value in provenance(device.type).items()
            if key in {"command", "git_commit", "git_dirty", "versions", "hardware"}
        }
        self.found |= {"driver": driver(), "started": datetime.now(UTC).isoformat(timespec="seconds")}
        self.found["versions"] |= {"python": platform.python_version(), "cuda": torch.version.cuda}

    def add(self, key: str, value: Value) -> Value:
        """Keep a part; return it."""
        self.found[key] = value
        self._write()
        print(f"{key}: {value}", flush=True)
        return value

    def append(self, key: str, row: dict[str, Any]) -> None:
        """Keep a further row of a part."""
        self.found.setdefault(key, []).append(row)
        self._write()
        print(row, flush=True)

    def failed(self) -> int:
        """Return 1 if a test failed, a step could not be measured or a training did not end well."""
        tests = self.found.get("tests", {"passed": 1, "failed": []})
        bad = [row for row in self.found.get("steps", []) if "failed" in row]
        ended = [row.get("every_step_once", False) for row in self.found.get("trainings", [])]
        return int(bool(tests["failed"] or not tests["passed"] or bad or not all(ended)))

    def table(self) -> str:
        """Return all of it as Markdown."""
        found = self.found
        said = (
            f"`{found['command']}` at commit {str(found['git_commit'])[:7]}, {found['started']}: "
            f"{found['hardware']}, driver {found['driver']}, torch {found['versions']['torch']}, "
            f"CUDA {found['versions']['cuda']}, {found.get('seconds', NO_VALUE)} s in all."
        )
        lines = ["# What a GPU does", "", said]
        if "tests" in found:
            tests = found["tests"]
            said = f"{tests['passed']} passed, {len(tests['failed'])} failed, {tests['skipped']} skipped"
            lines += ["", f"Tests: {said}, {tests['seconds']:.0f} s.", *(f"- {x}" for x in tests["failed"])]
        if "peak_tflops" in found:
            peaks = ", ".join(f"{name} {value:.3g}" for name, value in found["peak_tflops"].items())
            lines += ["", f"Best matrix product, TFLOP/s: {peaks}."]
        if found.get("steps"):
            lines += ["", "A training step, forward to optimizer, on a batch that lies on the device:", ""]
            lines += rows_of(found["steps"], STEP_COLUMNS)
        if found.get("trainings"):
            lines += ["", "Trainings by the command line, loader and all:", ""]
            flat = [row | row.get("metrics", {}) for row in found["trainings"]]
            lines += rows_of(flat, TRAINING_COLUMNS)
        return "\n".join(lines) + "\n"

    def _write(self) -> None:
        (self.folder / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")
        (self.folder / "gpu.md").write_text(self.table())


STEP_COLUMNS = {
    "model": "model",
    "mode": "mode",
    "side": "px",
    "batch_size": "batch",
    "images_per_second": "images/s",
    "seconds": "s a step",
    "peak_gib": "peak GiB",
    "tflops": "TFLOP/s",
    "share_of_peak": "share of peak",
    "first_seconds": "first step, s",
    "failed": "",
}
TRAINING_COLUMNS = {
    "model": "model",
    "steps": "steps",
    "killed_at": "killed at",
    "every_step_once": "every step once",
    "seconds": "s in all",
    "images_per_second": "images/s",
    "waiting_share": "waiting for data",
    "first_loss": "first loss",
    "last_loss": "last loss",
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
}


def rows_of(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Return a Markdown table."""
    head = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(cell(row.get(key)) for key in columns) + " |" for row in rows]


def cell(value: object) -> str:
    """Return a value as a reader wants it: three digits of a fraction."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def driver() -> str:
    """Return the version of NVIDIA's driver, if there is one."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"none ({sys.platform})"
    return done.stdout.strip()
