"""ROC, precision-recall and region-overlap curves of several methods in one plot, from their curves.npz."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.report.chosen import Chosen
from anomaly_lab.report.names import brief
from anomaly_lab.report.recipes import settings_of
from anomaly_lab.report.run import plain_path

MOST = 150  # runs; more make the page slow to open
POINTS = 160  # of a curve
LARGEST = 2**20  # bytes; a run's curves have at most 500 points, of 8 bytes, in seven rows
NAMES = tuple(
    f"{level}_{name}" for level in ("image", "pixel") for name in ("fpr", "tpr", "precision", "overlap")
)
AREAS = ("auroc", "ap", "aupro")
LIMIT = "evaluation.fpr_limit"


def curve_plots(
    shown: Mapping[tuple[str, str], Sequence[Chosen]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the page draws, a place each, and what was left out, a line each.

    A place has ``data``, ``category`` and ``methods``, each with ``name``, ``method``, ``tag``, ``curves``
    (rates in [0, 1] from the highest threshold to the lowest), ``areas``, and ``limit``: to which false
    positive rate AUPRO counts, None if unknown.
    """
    places: list[dict[str, Any]] = []
    said: list[str] = []
    room = MOST
    beyond = 0
    for (data, category), runs in shown.items():
        methods: list[dict[str, Any]] = []
        for run, column in runs:
            file = run.path / "curves.npz"
            if not file.is_file():
                continue
            if room <= 0:
                beyond += 1
                continue
            room -= 1
            try:
                found = read(file)
            except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
                why = f"is no file of curves ({type(error).__name__}); its run has none here"
                said.append(f"{plain_path(file)}: {why}")
                continue
            areas = {name: value for name, value in run.metrics.items() if name.partition("_")[2] in AREAS}
            about = {"name": brief(column), "method": column.model, "tag": column.tag, "seed": run.seed}
            methods.append({**about, "curves": found, "areas": areas, "limit": limit(run.path)})
        if methods:
            places.append({"data": data, "category": category, "methods": methods})
    if beyond:
        said.append(
            f"the curves of {beyond} runs more than {MOST} are left out; see figures/ in their folders"
        )
    return places, said


def limit(folder: Path) -> float | None:
    """Return a run's evaluation.fpr_limit, in (0, 1]; None if its config does not tell."""
    try:
        value = float(settings_of(folder).get(LIMIT, ""))
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def read(file: Path) -> dict[str, list[float]]:
    """Return the curves of a run, at most `POINTS` of each; ValueError: they are no rates in [0, 1]."""
    if file.stat().st_size > LARGEST:
        raise ValueError("too large")
    found: dict[str, list[float]] = {}
    with np.load(file, allow_pickle=False) as kept:
        for name in kept.files:
            if name in NAMES:
                values = kept[name]
                if values.ndim != 1 or values.dtype.kind != "f" or not len(values):
                    raise ValueError("no row of rates")
                few = values[np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int)]
                if not ((few >= 0) & (few <= 1)).all():
                    raise ValueError("no rates")
                found[name] = few.round(4).tolist()
    return found
