"""Runs of every recipe by one process and by two, side by side: ``python -m tests.side_by_side FOLDER``.

It prints a table in Markdown. Runs that are done are not done again, so it may be broken off. A training is
also done by one process with two threads, which only changes the order of additions: what that changes is the
measure for what two processes change.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests.support.runs import ran
from tests.support.training import weights

DATA = ["data=demo", "data.category=nut", "data.batch_size=6", "evaluation.overlays=0"]
FITTED = ["nearest", "variation", "deep_knn_small", "hit_milf_small", "padim_small", "patchcore_small"]
TRAINED = [
    *("ae_l2_small", "cpcae_knn_small", "draem_small", "mlff_small", "prff_small"),
    *("vt_adl_small", "vt_adl_released_small"),
]
STEPS = 30
HEAD = (
    *("recipe", "image AUROC", "pixel AUROC", "pixel AUPRO", "first loss", "last loss"),
    *("scores apart", "weights apart"),
)


def done(folder: Path, model: str, *more: str) -> Path:
    """Return the directory of a run of a recipe, of a few steps if it is trained."""
    length = [f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1"] if model in TRAINED else []
    return ran(folder, f"model={model}", *DATA, *length, "cache.gigabytes=0", *more)[1]


def scores(path: Path) -> np.ndarray:
    """Return the scores of its test images."""
    with (path / "predictions.csv").open() as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


def losses(path: Path) -> list[str]:
    """Return its first and last loss, as they are written; empty if it has none."""
    with (path / "training.csv").open() as file:
        rows = [row["loss"] for row in csv.DictReader(file)]
    return [rows[0], rows[-1]]


def apart(path: Path, other: Path) -> tuple[float, float]:
    """Return by how much scores and weights of two runs differ, as shares of their own size."""
    ours, theirs = scores(path), scores(other)
    one, two = weights(path), weights(other)
    pairs = [(one[name].double(), two[name].double()) for name in one]
    change = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
    size = torch.stack([b.square().sum() for _, b in pairs]).sum().sqrt()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max()), float(change / size)


def rows(folder: Path, model: str) -> list[list[str]]:
    """Return the table's rows of a recipe."""
    one = done(folder / "one", model)
    found = [(model, one)]
    if model in TRAINED:
        torch.set_num_threads(2)
        found.append(("two threads", done(folder / "threads", model)))
        torch.set_num_threads(1)
    found.append(("two processes", done(folder / "two", model, "trainer.devices=2")))
    table = []
    for name, path in found:
        metrics = json.loads((path / "metrics.json").read_text())
        numbers = [metrics.get(key) for key in ("image_auroc", "pixel_auroc", "pixel_aupro")]
        cells = ["" if value is None else f"{value:.6f}" for value in numbers]
        far = ["", ""] if path == one else [f"{value:.1e}" for value in apart(path, one)]
        table.append([name, *cells, *losses(path), *far])
    return table


def main(folder: Path) -> None:
    """Do the runs, and print the table."""
    torch.set_num_threads(1)
    table = [row for model in (*FITTED, *TRAINED) for row in rows(folder, model)]
    for row in (HEAD, ["---"] * len(HEAD), *table):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
