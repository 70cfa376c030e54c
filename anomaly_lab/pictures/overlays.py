"""Pictures of single test images: the worst misses and some hits, all on one scale."""

import re

import numpy as np

from anomaly_lab.data.augment.hierarchical import FAMILIES
from anomaly_lab.data.decoding import Split
from anomaly_lab.data.names import shortened
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.robustness import SEVERITIES, copied
from anomaly_lab.pictures.sheets import colour, heated, outline, png, sheet, uint8
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.types import Picture, Prediction


def draw_overlays(
    directory: RunDirectory,
    test: Split,
    scores: np.ndarray,
    predictor: Predictor,
    threshold: float | None,
    count: int,
) -> list[Picture]:
    """Write and return maps/*.png: input, what the method adds (a reconstruction), anomaly map, ground truth.

    Half of ``count`` are misses (anomalous images of the lowest score, normal ones of the highest in turn),
    half hits (anomalous, from the highest score down).

    Args:
        directory: gets the files.
        test: the test set, as it was scored.
        scores: (N,) float32, of its images.
        predictor: scores the chosen images once more, together.
        threshold: is written beside the scores; None: there is none.
        count: of the pictures.
    """
    chosen = choose(scores, np.array([record.label for record in test.records]), count)
    if not chosen:
        return []
    images = [test.images[row] for _, row in chosen]
    prediction = predictor(images)
    extra = predictor.panels(images)
    scale = (prediction.anomaly_map.median().item(), prediction.anomaly_map.max().item())
    pictures = []
    limit = "" if threshold is None else f", threshold {threshold:.4g}"
    for position, (kind, row) in enumerate(chosen):
        panels: dict[str, np.ndarray] = {"input": test.images[row]}
        for name, values in extra.items():
            value = values[position]
            panels[name] = uint8(value) if value.ndim == 3 else colour(value.numpy(), *scale)
        panels |= _map_and_truth(test, row, prediction, position, scale, localises=predictor.method.localises)
        record = test.records[row]
        stem = re.sub(r"[^\w.-]", "_", shortened(f"{record.defect}-{record.image.stem}", 100))
        title = f"{kind}  {record.defect}/{record.image.name}  score {scores[row]:.4g}{limit}"
        name = f"{position:02d}-{kind}-{stem}.png"
        with directory.replacing(f"maps/{name}") as file:
            file.write_bytes(png(sheet(title, panels)))
        pictures.append(Picture(directory.path / "maps" / name, "maps", title))
    return pictures


def _map_and_truth(
    test: Split,
    row: int,
    prediction: Prediction,
    position: int,
    scale: tuple[float, float],
    *,
    localises: bool,
) -> dict[str, np.ndarray]:
    panels = {}
    if localises:
        heat = colour(prediction.anomaly_map[position].numpy(), *scale)
        panels[f"map: dark {scale[0]:.3g}, bright {scale[1]:.3g}"] = heat
        panels["map on the input"] = heated(
            test.images[row], prediction.anomaly_map[position].numpy(), *scale
        )
    record = test.records[row]
    truth = "ground truth" if record.mask else "no mask" if record.label else "ground truth: no defect"
    return panels | {truth: outline(test.images[row], test.masks[row])}


def choose(scores: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[str, int]]:
    """Return (kind, row) of the pictures: misses first, then hits; no row twice."""
    order = np.argsort(scores, kind="stable")
    anomalous = order[labels[order]].tolist()
    normal = order[~labels[order]][::-1].tolist()
    missed = [("lowest-defective", row) for row in anomalous[: len(anomalous) // 2]]
    false = [("highest-good", row) for row in normal]
    misses = [pair for both in zip(missed, false, strict=False) for pair in both] or missed or false
    misses = misses[: count // 2]
    hits = [row for row in anomalous[::-1] if ("lowest-defective", row) not in misses]
    return misses + [("highest-defective", row) for row in hits[: count - len(misses)]]


def draw_copies(directory: RunDirectory, test: Split) -> list[Picture]:
    """Write maps/poison.png: a good test image, clean and as the method saw its copies, a line a family."""
    row = int(np.argmin([record.label for record in test.records]))
    image = test.images[row]
    lines = []
    for family in FAMILIES:
        copies = {f"severity {s}": copied(image, family, s, row) for s in SEVERITIES}
        lines.append(sheet(f"{family}: {test.records[row].image.name}", {"clean": image} | copies))
    with directory.replacing("maps/poison.png") as file:
        file.write_bytes(png(np.concatenate(lines)))
    caption = f"what the method saw of {test.records[row].image.name}, a line a family"
    return [Picture(directory.path / "maps" / "poison.png", "poison", caption)]
