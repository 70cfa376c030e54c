"""Methods with random weights, and batches for them."""

import torch

from anomaly_lab.config.building import instantiate
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.train_batches import inverted
from tests.support.training import told

OFF = ("model.fusion=false", "model.discriminator=unet", "model.progressive.iterations=1")
AS_DRAEM = (
    *OFF,
    *("model.learning_rate=2e-3", "model.discriminator_learning_rate=2e-3"),
    *("model.milestones=[0.4,0.55,0.7,0.8,0.9]", "model.gamma=0.4"),
)


def built(*overrides: str) -> AnomalyMethod:
    """Return a method with random weights."""
    torch.manual_seed(0)
    return instantiate(composed(*overrides, "data=demo").model, _convert_="all")


def learning(method: AnomalyMethod, steps: int) -> AnomalyMethod:
    """Return it, told that it will make so many steps, logging nothing."""
    method.log_dict = lambda *_: None
    return told(method, steps=steps)


def batch(size: int = 64, count: int = 2) -> TrainBatch:
    """Return images, each with a square of pseudo anomaly."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(count, 3, size, size, generator=generator)
    mask = torch.zeros(count, size, size, dtype=torch.bool)
    mask[:, 10:30, 20:40] = True
    return inverted(clean, mask)
