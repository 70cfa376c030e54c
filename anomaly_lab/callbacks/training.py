"""What watches over training: seeding, the loss, the state to resume from, the progress line."""

import csv
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any, final

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from tqdm import tqdm

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.results import RunDirectory

log = logging.getLogger(__name__)


@final
class Guard(L.Callback):
    """Seeds torch from (seed, epoch) at each epoch start; stops after the last step or a loss that is not finite."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make whatever is random inside the networks a function of (seed, epoch)."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, trainer.current_epoch)).generate_state(1)[0]))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Stop before the step that would spoil the weights."""
        if not math.isfinite(loss.item()):
            where = f"step {trainer.global_step}, epoch {trainer.current_epoch}"
            raise RunError(
                f"the loss is {loss.item()} at {where}; lower model.learning_rate or use trainer.precision=32-true"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where the recipe says, also within an epoch."""
        assert isinstance(pl_module, AnomalyMethod)
        trainer.should_stop = pl_module.automatic_optimization and trainer.global_step >= pl_module.steps


@final
class Saving(Checkpoint):
    """Saves the state to resume from at the end of an epoch, whole or not at all, at most every so often."""

    def __init__(self, directory: RunDirectory, minutes: float, training_hash: str) -> None:
        self.directory, self.seconds, self.training_hash = directory, 60 * minutes, training_hash
        self.saved = time.monotonic()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Name the recipe in the checkpoint."""
        checkpoint["training_hash"] = self.training_hash

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time."""
        if time.monotonic() - self.saved >= self.seconds:
            with self.directory.replacing(self.directory.resume_checkpoint.name) as file:
                trainer.save_checkpoint(file)
            self.saved = time.monotonic()


@final
class Progress(L.Callback):
    """Shows step, loss, images/s and the time left, and writes one row a step to training.csv."""

    def __init__(self, path: Path) -> None:
        self.file = path / "training.csv"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open both; rows that a killed run wrote after its last saved state are dropped."""
        kept = []
        if self.file.exists():
            with self.file.open(newline="") as old:
                kept = [
                    row
                    for row in csv.reader(old)
                    if row and row[0].isdigit() and 0 < int(row[0]) <= trainer.global_step
                ]
        self.rows = self.file.open("w", newline="", buffering=1)
        self.writer = csv.writer(self.rows)
        self.writer.writerows([("step", "epoch", "loss", "learning_rate", "images_per_second"), *kept])
        assert isinstance(pl_module, AnomalyMethod)
        every = 0.5 if sys.stderr.isatty() else 15.0
        self.bar = tqdm(
            total=pl_module.steps, initial=trainer.global_step, desc="training", unit="step", mininterval=every
        )
        self.clock = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a step."""
        now = time.monotonic()
        rate = len(batch.image) / max(now - self.clock, 1e-9)
        self.clock = now
        learned = bool(outputs and trainer.optimizers)  # else there is neither loss nor learning rate
        loss = outputs["loss"].item() if learned else ""
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"] if learned else ""
        self.writer.writerow((trainer.global_step, trainer.current_epoch, loss, learning_rate, f"{rate:.1f}"))
        said = f"loss {loss:.4f}, " if learned else ""
        self.bar.set_postfix_str(f"{said}{rate:.0f} images/s", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close both."""
        self.bar.close()
        self.rows.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close both, if the error came while they were open."""
        if "bar" in self.__dict__:
            self.bar.close()
            self.rows.close()
