"""Testing a method as a run does, without its config."""

from pathlib import Path
from typing import Any

import lightning as L

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.collect import Collector, Scored
from anomaly_lab.evaluation.evaluate import evaluate
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.robustness import poison_metrics, robustness
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.pictures.drawing import draw
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.recording import record

PLAIN: dict[str, Any] = {
    "resolution": "network",
    "mask_resize": "nearest",
    "fpr_limit": 0.3,
    "target_fpr": 0.05,
    "overlays": 0,
    "bootstrap": 0,
    "save_maps": False,
    "poison": False,
}


def settings(**changes: Any) -> EvaluationSettings:
    """Return settings that ask for numbers alone, but for these changes."""
    return EvaluationSettings(**{**PLAIN, **changes})


def collected(
    folder: Path, data: AnomalyDataModule, method: AnomalyMethod, how: EvaluationSettings
) -> tuple[Scored, Predictor]:
    """Return what a test of the method gathers, and what computed it."""
    collector = Collector(data, how)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, callbacks=[collector], **quiet
    )
    predictor = Predictor.of(trainer, method)
    return collector.collect(trainer, method, predictor), predictor


def evaluated(
    folder: Path, data: AnomalyDataModule, method: AnomalyMethod, how: EvaluationSettings
) -> RunDirectory:
    """Test, evaluate, record and draw; return the directory."""
    directory = RunDirectory(folder)
    scored, predictor = collected(folder, data, method, how)
    numbers = evaluate(scored, how, method.printed)
    cells = robustness(predictor, data.test, data.batch_size) if how.poison else []
    numbers.metrics.update(poison_metrics(cells))
    record(directory, scored, numbers, cells)
    draw(directory, data.test, scored, numbers, predictor, how)
    return directory
