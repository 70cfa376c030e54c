"""What a method is told of its training, where no run tells it; the weights that a run keeps."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Training

PLAN = Training(
    steps=4, epochs=1, precision="32-true", each_once=True, augmented=False, pseudo=True, normals=()
)
Method = TypeVar("Method", bound=AnomalyMethod)


def told(method: Method, **changes: Any) -> Method:
    """Return the method, told of ``PLAN`` with these changes; a supervised one has two anomalies."""
    method.tell(PLAN._replace(**{"anomalies": 2 if method.supervised else 0} | changes))
    return method


def weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of the run in this folder."""
    return torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
