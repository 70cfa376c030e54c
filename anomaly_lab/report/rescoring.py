"""Metrics of finished runs by today's definitions, from the scores and maps that the runs kept.

It takes torch and the data sets, which a report does without, so it is loaded only where it is asked for.
"""

import csv
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly_lab.config.building import built
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.kept import read_kept
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import RunError, UserError, mendable
from anomaly_lab.evaluation.collect import FEW_PIXELS, TOLERANCE
from anomaly_lab.evaluation.definitions import VERSIONS, versions_of
from anomaly_lab.evaluation.metrics.bootstrap import bootstrap_interval
from anomaly_lab.evaluation.metrics.curves import Curves, ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves
from anomaly_lab.evaluation.pixels import add_maps
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.report.run import Run
from anomaly_lab.report.tables import MADE_OF, POISONED, made_of
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import locked
from anomaly_lab.runs.reading import one_line

LARGEST = 2**27  # bytes of predictions.csv: a million images
HEADER = ["path", "defect", "label", "score"]
NO_SYNTHESIS = {"_target_": "anomaly_lab.synthesis.none.NoSynthesis"}


class Level(NamedTuple):
    """The numbers of images, or of pixels, computed anew."""

    metrics: dict[str, float]
    curves: dict[str, np.ndarray]


class Image(NamedTuple):
    """A line of predictions.csv."""

    name: str  # of the file
    defect: str
    label: bool
    score: float


def rescored(runs: Sequence[Run], allow: Collection[str]) -> Iterator[str]:
    """Compute anew what has another definition now; yield a line for each run that has such metrics.

    A run's files are written whole; what its metrics were stays in its manifest (``metrics_before``). Of a
    run that cannot be computed anew the line says why, and its files stay as they are.

    Args:
        runs: of any status.
        allow: top-level modules outside this package that a config may name.
    """
    for run in runs:
        wanted = [name for name in run.metrics if name in VERSIONS and run.version(name) != VERSIONS[name]]
        if wanted:
            try:
                with locked(run.path):
                    said = _rescored(run, wanted, allow)
            except Exception as error:  # a damaged folder, or a stranger's, raises almost anything
                cause = mendable(error) or error
                why = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
                said = f"cannot be computed anew: {one_line(why, 500)}"
            yield f"{run.where}: {said}"


def _rescored(run: Run, wanted: Sequence[str], allow: Collection[str]) -> str:
    """Compute and write; return what was done."""
    directory = RunDirectory(run.path)
    cfg: Any = read_kept(run.path / "config.yaml")
    cfg.data.synthesis = cfg.synthesis = NO_SYNTHESIS
    Checked.of(cfg, allow)  # before anything is built, as the folder may be a stranger's
    how: EvaluationSettings = built(cfg.evaluation)
    images = predictions(run.path / "predictions.csv")
    found = Level({}, {})
    if any(name.startswith("image_") for name in wanted):
        found = _of_images(images, how)
    if any(name.startswith("pixel_") for name in wanted):
        pixels = _of_pixels(run, cfg, images, how)
        found = Level(found.metrics | pixels.metrics, found.curves | pixels.curves)
    if gone := [name for name in wanted if name not in found.metrics]:
        raise RunError(f"{gone[0]} does not come out of what was kept")
    before = directory.metrics()
    intervals = {f"{name}_{end}" for name in wanted for end in ("low", "high")}
    new = {
        name: found.metrics[name] for name in before if name in {*wanted, *intervals} & found.metrics.keys()
    }
    # What a paper calls otherwise is one of ours, to the last digit.
    aliases = {
        name: new[ours]
        for name, value in before.items()
        for ours in MADE_OF.get(name, wanted)
        if name not in VERSIONS and name.endswith("_as_printed") and ours in new and value == before[ours]
    }
    # What cannot be computed anew stays by the definition that its run had.
    poisonings = {
        name: run.version(ours, name)
        for name in before
        for ours in made_of(name)
        if name.startswith(POISONED) and ours in wanted
    }
    _write(directory, before, new | aliases, found.curves, poisonings)
    changes = [f"{name} {before[name]:.4f} -> {new[name]:.4f}" for name in wanted]
    poisoned = "; poisoned_* stay as they were" if "poisoned_image_auroc" in before else ""
    return f"computed anew: {', '.join(changes)}{poisoned}"


def _write(
    directory: RunDirectory,
    before: dict[str, float],
    new: dict[str, float],
    curves: dict[str, np.ndarray],
    versions_kept: dict[str, int],
) -> None:
    """Write the numbers; killed in between, it does the same once more and keeps what was first.

    RunError: its curves cannot be read; nothing is written.
    """
    all_curves = _curves(directory.path / "curves.npz")
    manifest = directory.manifest()
    versions = manifest.get("metric_versions", {})
    kept = manifest.get("metrics_before", [])
    if not kept or kept[-1]["metric_versions"] != versions:
        old = {name: before[name] for name in new}
        directory.note(metrics_before=[*kept, {"metric_versions": versions, "metrics": old}])
    directory.write_arrays("curves.npz", all_curves | curves)
    directory.write_json("metrics.json", before | new)
    directory.note(metric_versions=versions_kept | versions | versions_of(new))


def _curves(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{file}: cannot be read ({one_line(error)}), so no run can be scored anew") from error


def predictions(file: Path) -> list[Image]:
    """Return the test images of a run, in their order. RunError: the file is damaged or not there."""
    damaged = f"{file}: is damaged, so no run can be scored anew from it"
    try:
        if file.stat().st_size > LARGEST:
            raise RunError(damaged)
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines(), strict=True))
        if not rows or rows[0] != HEADER:
            raise RunError(damaged)
        images = [
            Image(
                path.removeprefix("'").rpartition("/")[2],
                defect.removeprefix("'"),
                label == "1",
                float(score),
            )
            for path, defect, label, score in rows[1:]
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(damaged) from error
    return images


def _of_images(images: Sequence[Image], how: EvaluationSettings) -> Level:
    scores = np.array([image.score for image in images], np.float32)
    labels = np.array([image.label for image in images], np.bool_)
    state = ExactCurves()
    state.update(scores, labels)
    interval = bootstrap_interval(scores, labels, np.random.default_rng(0), how.bootstrap)
    return Level(state.summary("image", how.fpr_limit) | interval, _named("image", state))


def _named(level: str, state: Curves) -> dict[str, np.ndarray]:
    return {f"{level}_{name}": points for name, points in state.curves().items()}


def _of_pixels(run: Run, cfg: Any, images: Sequence[Image], how: EvaluationSettings) -> Level:
    file = run.path / "maps" / "maps.npz"
    if not file.is_file():
        raise RunError("no maps were kept for its pixel metrics; evaluation.save_maps=true keeps them")
    manifest = RunDirectory(run.path).manifest()
    data: AnomalyDataModule = built(cfg.data)
    data.crop_box = manifest.get("crop_box")
    if data.fingerprint != manifest.get("data_fingerprint"):
        raise RunError(f"{data.root}: its data are not those of the run any more; give them back")
    listed = [(record.image.name, record.defect, record.label) for record in data.roles["test"]]
    if listed != [image[:3] for image in images]:
        raise RunError(f"{data.root}: its test images are not listed as in predictions.csv")
    data.setup("test")
    sizes = [data.geometry().size] * len(listed) if how.resolution == "network" else data.test.sizes
    few = sum(height * width for height, width in sizes) <= FEW_PIXELS
    with _opened(file, len(listed)) as maps:
        centre = float(np.median(maps["00000"]))
        state: Curves = ExactCurves() if few else HistogramCurves(centre)
        while True:
            pairs = ((row, maps[f"{row:05d}"]) for row in range(len(listed)))
            add_maps(state, data.test, pairs, how)
            if state.error_bound(how.fpr_limit) <= TOLERANCE:
                return Level(state.summary("pixel", how.fpr_limit), _named("pixel", state))
            state = ExactCurves()


def _opened(file: Path, count: int) -> Any:
    """Return the open file of so many maps, which reads each when it is asked for."""
    try:
        maps = np.load(file, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{file}: cannot be read ({one_line(error)})") from error
    if sorted(maps.files) != [f"{row:05d}" for row in range(count)]:
        maps.close()
        raise RunError(f"{file}: has not a map for each of {count} test images")
    return maps
