"""What a run does with its dashboards, without a run: a training of five steps, and pictures of a kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from anomaly_lab.config.building import built
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.training.loggers.base import Mirror
from anomaly_lab.training.loggers.mirrors import Mirrors
from anomaly_lab.types import Picture
from tests.support.runs import composed

STEPS = 5
CONFIG = {
    "seed": 3,
    "tag": "run",
    "tags": ["line3"],
    "data": {"category": "nut", "milestones": [0.8, 0.9]},
    "entity": None,
}
CHOICES = {"model": "draem_small", "data": "mvtec", "logger": "csv"}
SIZES = (1000, 800)
METRICS = {"image_auroc": 0.75, "pixel_auroc": 0.5}
# Of libraries, on a training so small.
ADVICE = (
    "The 'train_dataloader' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def chosen(option: str, *overrides: str) -> Mirror:
    """Return the mirror of conf/logger/OPTION.yaml with some keys set."""
    return built(composed(f"logger={option}", *overrides).logger[option])


class Line(lightning.LightningModule):
    """Fits a line; it keeps the losses that it logs, and breaks down before a given step."""

    def __init__(self, breaks_at: int | None = None) -> None:
        super().__init__()
        self.layer, self.breaks_at, self.losses = torch.nn.Linear(1, 1), breaks_at, []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.breaks_at:
            raise ZeroDivisionError("broken off")
        loss = (self.layer(batch) - 2 * batch).square().mean()
        self.losses.append(loss.item())
        self.log_dict({"loss/mse": loss.detach()})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def mirrors_of(
    path: Path, config: dict[str, Any] = CONFIG, group: str | None = None, **mirrors: Mirror
) -> Mirrors:
    """Return the mirrors of a run directory."""
    return Mirrors(mirrors, RunDirectory(path), config, CHOICES, group)


def job(mirrors: Mirrors, module: Line, metrics: dict[str, float], pictures: Sequence[Picture] = ()) -> None:
    """Do what a run does with its mirrors: open them, train, show what came out."""
    mirrors.directory.path.mkdir(parents=True, exist_ok=True)
    data = DataLoader(torch.arange(1.0, STEPS + 1)[:, None])
    with mirrors.opened(SIZES) as loggers:
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=list(loggers) or False, log_every_n_steps=1, **quiet
        )
        trainer.fit(module, data)
        mirrors.show(metrics, trainer.global_step, pictures)


def drawn(path: Path) -> list[Picture]:
    """Draw two maps and a figure, each of a colour of its own, 12 pixels wide and 8 high."""
    pictures = []
    for name, series in (("maps/00-a", "maps"), ("maps/01-b", "maps"), ("figures/roc_pr", "roc_pr")):
        file = path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (20 + 60 * len(pictures), 0, 99)).save(file)
        pictures.append(Picture(file, series, f"caption of {name} | score 0.5"))
    return pictures
