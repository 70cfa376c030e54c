"""Trainings of a stated length on the device, by the command line as a user gives it, killed and resumed."""

import argparse
import csv
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import OmegaConf

from tests.gpu.report import Report
from tests.support.commands import begun, ended, kill

BROKEN_OFF = ("draem", "prff")
FURTHER = {"mlff": ["model.backbone.weights=random", "trainer.max_epochs=-1"]}
SHORT = 15  # seconds, of a training that is not broken off


def train_all(report: Report, device: torch.device, folder: Path, given: argparse.Namespace) -> None:
    """Add a row a training: steps, wait for data, where it was broken off, metrics."""
    rates = {
        row["model"]: row["seconds"]
        for row in report.found.get("steps", [])
        if row["mode"] == "bf16" and "seconds" in row
    }
    for model in ["draem_small"] if given.tiny else ["draem", "prff", "mlff", "vt_adl"]:
        broken = given.tiny or model in BROKEN_OFF
        wanted = 60 * given.minutes if broken else SHORT
        steps = 24 if given.tiny else max(40, int(wanted / rates.get(model, 1.0)))
        words = overrides(model, steps, device, folder, given)
        began = time.monotonic()
        killed_at = kill_half_way(words, folder / model, steps) if broken else None
        code = ended("anomaly_lab", *words, said=folder / f"{model}.log")
        row = {"model": model, "steps": steps, "killed_at": killed_at, "exit_code": code}
        row["seconds"] = time.monotonic() - began
        if code:
            print((folder / f"{model}.log").read_text()[-3000:], flush=True)
        else:
            row |= read(folder / model, steps)
        report.append("trainings", row)


def overrides(
    model: str, steps: int, device: torch.device, folder: Path, given: argparse.Namespace
) -> list[str]:
    """Return the command line of a training."""
    where = [f"data.root={given.root}", f"data.category={given.category}", "data=mvtec"]
    if given.root is None:
        where = ["data=demo", f"data.root={folder / 'demo'}"]
    textures = f"textures={given.textures or 'procedural'}"
    small = (
        ["trainer=cpu", "data.image_size=64", "data.batch_size=2", "data.holdout=0"]
        if given.tiny
        else ["trainer=gpu_bf16"]
    )
    saves = f"trainer.save_minutes={0 if given.tiny else given.minutes / 4}"
    length = [f"trainer.max_steps={steps}", *([] if given.tiny else ["trainer.max_epochs=-1"])]
    return [
        f"model={model}",
        *where,
        textures,
        *small,
        *dict.fromkeys([*length, saves, *FURTHER.get(model, [])]),
        f"runs={folder / model}",
    ]


def kill_half_way(words: list[str], runs: Path, steps: int) -> int | None:
    """Kill the training once it saved its state and did half of its steps; return the step it had come to."""
    with begun("anomaly_lab", *words, said=runs.with_suffix(".first.log")) as process:
        while process.is_alive():
            done = rows(runs)
            if len(done) >= steps // 2 and list(runs.glob("*/*/*/*/resume.ckpt")):
                kill(process)
                return int(done[-1]["step"])
            time.sleep(0.05)
    return None


def rows(runs: Path) -> list[dict[str, str]]:
    """Return the whole rows of training.csv so far."""
    file = next(runs.glob("*/*/*/*/training.csv"), None)
    found = list(csv.DictReader(file.read_text().splitlines())) if file else []
    return [row for row in found if row["step"] and row["loader_seconds"]]


def read(runs: Path, steps: int) -> dict[str, Any]:
    """Return what a finished run says of itself."""
    done = rows(runs)
    path = next(runs.glob("*/*/*/*/metrics.json")).parent
    metrics = json.loads((path / "metrics.json").read_text())
    late = done[len(done) // 2 :]  # after the workers began and kernels were chosen
    rate = mean(float(row["images_per_second"]) for row in late)
    batch_size = OmegaConf.load(path / "config.yaml").data.batch_size
    waited = mean(float(row["loader_seconds"]) for row in late) * rate / batch_size
    return {
        "every_step_once": [int(row["step"]) for row in done] == list(range(1, steps + 1)),
        "images_per_second": rate,
        "waiting_share": waited,
        "first_loss": float(done[0]["loss"]),
        "last_loss": float(done[-1]["loss"]),
        "metrics": {name: value for name, value in metrics.items() if isinstance(value, float)},
    }
