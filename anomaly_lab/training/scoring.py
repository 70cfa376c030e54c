"""What all ranks of a run do together: train, then score. What is made of the scores is not theirs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.collect import Collector, Scored
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.robustness import Cell, robustness
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.training.fitting import Place, fit, prepared
from anomaly_lab.training.settings import TrainerSettings


class Measured(NamedTuple):
    """What came of it; whole on the first rank alone."""

    trainer: L.Trainer
    predictor: Predictor
    scored: Scored
    cells: list[Cell]  # of poisoned copies of the test images, if they were asked for


def trained_and_scored(
    settings: TrainerSettings,
    how: EvaluationSettings,
    data: AnomalyDataModule,
    method: AnomalyMethod,
    place: Place,
    dashboards: Sequence[Any],
) -> Measured:
    """Train, unless the weights are there, and score the test set."""
    collector = Collector(data, how)
    trainer = prepared(settings, method, place, [collector], dashboards)
    fit(trainer, method, data, place)
    predictor = Predictor.of(trainer, method)
    scored = collector.collect(trainer, method, predictor)
    cells = robustness(predictor, data.test, data.batch_size) if how.poison else []
    return Measured(trainer, predictor, scored, cells)
