"""Where the test images lie by t-SNE, from the figures/tsne.csv and tsne_NAME.csv of runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly_lab.errors import RunError
from anomaly_lab.report.chosen import Chosen
from anomaly_lab.report.names import brief
from anomaly_lab.report.run import plain_path
from anomaly_lab.runs.reading import one_line, read_text

MOST = 12  # plots
HEADER = ["path", "defect", "label", "x", "y"]


def embedding_plots(
    shown: Mapping[tuple[str, str], Sequence[Chosen]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the page draws, a run's vectors of a kind each, and what was left out, a line each.

    A plot has ``data``, ``category``, ``name``, ``method``, ``tag``, and ``kinds``: by defect (empty: normal)
    the ``x``, ``y`` and file ``names`` of its images.
    """
    plots: list[dict[str, Any]] = []
    said: list[str] = []
    beyond = 0
    for (data, category), runs in shown.items():
        for file, column in ((file, column) for run, column in runs for file in _files(run.path)):
            if len(plots) >= MOST:
                beyond += 1
                continue
            try:
                kinds = _kinds(read_text(file))
            except (RunError, ValueError, csv.Error) as error:
                said.append(f"{plain_path(file)}: cannot be shown ({one_line(error)})")
                continue
            vectors = one_line(file.stem.removeprefix("tsne").removeprefix("_"))
            name = f"{brief(column)}, {vectors}" if vectors else brief(column)
            about = {"name": name, "method": column.model, "tag": column.tag}
            plots.append({"data": data, "category": category, **about, "kinds": kinds})
    if beyond:
        said.append(f"t-SNE: {beyond} plots more than {MOST} are left out; see figures/ in the runs' folders")
    return plots, said


def _files(run: Path) -> list[Path]:
    """Return the tables of places that a run has: of its embeddings, then of further vectors."""
    found = [run / "figures" / "tsne.csv", *sorted((run / "figures").glob("tsne_*.csv"))]
    return [file for file in found if file.is_file()]


def _kinds(text: str) -> dict[str, dict[str, list[Any]]]:
    rows = list(csv.reader(text.splitlines(), strict=True))
    if not rows or rows[0] != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise ValueError(f"its header is not {','.join(HEADER)}")
    kinds: dict[str, dict[str, list[Any]]] = {}
    for path, defect, label, x, y in rows[1:]:
        kind = one_line(defect.removeprefix("'")) if label == "1" else ""
        places = kinds.setdefault(kind, {"x": [], "y": [], "names": []})
        places["x"].append(round(_finite(x), 3))
        places["y"].append(round(_finite(y), 3))
        places["names"].append(one_line(path.removeprefix("'").rpartition("/")[2]))
    return kinds


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < 1e9:
        raise ValueError("a place is no number")
    return value
