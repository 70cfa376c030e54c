"""A tiny VT-ADL, images and batches for it."""

from functools import lru_cache

import torch
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.config.building import instantiate
from anomaly_lab.methods.vt_adl.method import VtAdl
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.train_batches import unlabelled

TINY = (
    *("data.image_size=48", "model.encoder.patch_size=12", "model.encoder.dim=16", "model.encoder.depth=1"),
    *("model.encoder.mlp_dim=16", "model.mixture.gaussians=3", "model.decoder.side=2"),
    "model.decoder.layers=[[4,4,2,1],[3,12,12,0]]",
)


@lru_cache
def tiny() -> DictConfig:
    """Return its config, composed once."""
    return composed("model=vt_adl_small", "data=demo", *TINY)


def made(*overrides: str) -> VtAdl:
    """Return it with random weights; what it logs last is its ``logged``."""
    torch.manual_seed(0)
    cfg = OmegaConf.merge(tiny(), OmegaConf.from_dotlist(overrides))
    method = instantiate(cfg.model, _convert_="all")
    method.log_dict = lambda values: setattr(method, "logged", {k: v.item() for k, v in values.items()})
    return method


def images(seed: int, count: int = 3) -> torch.Tensor:
    """Return random images of 48 px."""
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


def batch(image: torch.Tensor) -> TrainBatch:
    """Return a training batch of these normal images."""
    return unlabelled(image)


def step(method: VtAdl, optimizer: torch.optim.Optimizer, image: torch.Tensor) -> None:
    """Make one step as Lightning makes it."""
    optimizer.zero_grad()
    method.training_step(batch(image), 0).backward()
    method.on_before_optimizer_step(optimizer)
    optimizer.step()
