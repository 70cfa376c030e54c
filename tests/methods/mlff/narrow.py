"""A narrow MLFF and batches for it."""

import torch

from anomaly_lab.config.building import instantiate
from anomaly_lab.methods.mlff.method import Mlff
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.train_batches import inverted
from tests.support.training import told

NARROW = (
    *("model.texture.channels=8", "model.fusion_channels=8"),
    *("model.texture.tem_levels=8", "model.texture.size=12"),
)
TINY = (
    *("model.backbone.name=mobilenetv3_small_050", "model.backbone.weights=random"),
    "model.backbone.layers=[blocks.0,blocks.1,blocks.3]",
)


def built(*overrides: str) -> Mlff:
    """Return it with random weights, told of a training, logging nothing."""
    torch.manual_seed(0)
    cfg = composed("model=mlff_small", "data=demo", *NARROW, *overrides)
    method = instantiate(cfg.model, _convert_="all")
    method.log_dict = lambda _: None
    return told(method)


def batch(pseudo: str = "some", size: int = 64, count: int = 2, seed: int = 1) -> TrainBatch:
    """Return a batch, the first, no or all of whose images are pseudo anomalies."""
    clean = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(count, size, size, dtype=torch.bool)
    mask[{"some": slice(1), "no": slice(0), "all": slice(None)}[pseudo], 10:30, 20:40] = True
    return inverted(clean, mask)
