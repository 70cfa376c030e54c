"""What a supervised method is given in tests: labelled defects, as a run hands them to it."""

from functools import lru_cache
from typing import Any

import torch
from hydra.utils import get_class

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed


@lru_cache
def is_supervised(model: str) -> bool:
    """Say whether the method of a recipe is supervised."""
    method: Any = get_class(composed(f"model={model}", "data=demo").model._target_)
    return bool(method.supervised)


def defects(model: str, count: int = 1) -> list[str]:
    """Return the overrides that give a recipe so many labelled defects, if its method learns from them."""
    return [f"data.train_anomalies={count}"] if is_supervised(model) else []


def given(method: AnomalyMethod, batch: TrainBatch) -> TrainBatch:
    """Return a batch as a run hands it to this method.

    To a supervised one every second image, from the first on, is a labelled defect with its mask; the others
    are normal.
    """
    if not method.supervised:
        return batch
    label = torch.arange(len(batch.image), device=batch.image.device) % 2 == 0
    image = torch.where(label[:, None, None, None], batch.image, batch.clean)
    return TrainBatch(image, image, batch.mask & label[:, None, None], label)
