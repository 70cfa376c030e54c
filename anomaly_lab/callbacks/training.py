"""What watches over training: seeding, the loss, the state to resume from, the progress line."""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any, final

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.results import RunDirectory

log = logging.getLogger(__name__)
READ_EVERY = 32  # steps; to read a value from an accelerator is to wait for it, so its losses are read in blocks


@final
class Guard(L.Callback):
    """Lays out a resumed state, seeds torch from (seed, epoch) at each epoch start, stops after the last step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lay out a resumed optimizer's state."""
        if trainer.global_step:
            from anomaly_lab.checkpoints import lay_out  # noqa: PLC0415 - most trainings start afresh

            lay_out(trainer.optimizers)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make whatever is random inside the networks a function of (seed, epoch)."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, trainer.current_epoch)).generate_state(1)[0]))

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
        """Save if it is time; a disk that is full for now does not end hours of training."""
        if time.monotonic() - self.saved >= self.seconds:
            try:
                with self.directory.replacing(self.directory.resume_checkpoint.name) as file:
                    trainer.save_checkpoint(file)
            except RunError as error:
                log.warning("%s; training goes on without it", error)
            self.saved = time.monotonic()


@final
class Progress(L.Callback):
    """Shows step, loss, images/s, the share of waiting for data, the time left; a row a step goes to training.csv.

    It ends a training whose loss is not finite, before that state is saved.
    """

    def __init__(self, path: Path) -> None:
        self.file = path / "training.csv"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open both; rows that a killed run wrote after its last saved state are dropped."""
        assert isinstance(pl_module, AnomalyMethod)
        old = list(csv.reader(self.file.read_text().splitlines())) if self.file.exists() else []
        begun = trainer.global_step
        kept = [row for row in old if row and row[0].isdigit() and 0 < int(row[0]) <= begun]
        self.rows = self.file.open("w", newline="", buffering=1)
        self.writer = csv.writer(self.rows)
        header = ("step", "epoch", "loss", "learning_rate", "images_per_second", "loader_seconds")
        self.writer.writerows([header, *kept])
        every = 0.5 if sys.stderr.isatty() else 15.0
        self.bar = tqdm(total=pl_module.steps, initial=begun, desc="training", unit="step", mininterval=every)
        self.unread: list[tuple[Any, ...]] = []  # step, epoch, loss, learning rate, images, seconds of waiting
        self.clock = self.ended = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What was saved between two epochs is no wait for data."""
        self.ended = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time that the loader let the device wait, and the first group's rate of the step to come."""
        self.waited = time.monotonic() - self.ended
        self.rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a step."""
        learned = bool(outputs and trainer.optimizers)  # else there is neither loss nor learning rate
        loss = outputs["loss"].detach() if learned else None
        step, epoch = trainer.global_step, trainer.current_epoch
        self.unread.append((step, epoch, loss, self.rate, len(batch.image), self.waited))
        if batch.image.device.type == "cpu" or len(self.unread) == READ_EVERY:
            self._read()
        self.ended = time.monotonic()

    def _read(self) -> None:
        """Write and show what was not read yet; a block of steps shares its images/s."""
        if not self.unread:
            return
        losses = [row[2] for row in self.unread if row[2] is not None]
        values = [f"{loss:.7g}" for loss in torch.stack(losses).tolist()] if losses else [""] * len(self.unread)
        before, self.clock = self.clock, time.monotonic()
        rate, waited = (sum(row[k] for row in self.unread) / max(self.clock - before, 1e-9) for k in (4, 5))
        for (step, epoch, _, learning_rate, _, wait), loss in zip(self.unread, values, strict=True):
            self.writer.writerow((step, epoch, loss, learning_rate, f"{rate:.1f}", f"{wait:.4f}"))
            if loss in {"nan", "inf", "-inf"}:
                way_out = "lower model.learning_rate or use trainer.precision=32-true"
                raise RunError(f"the loss is {loss} at step {step}, epoch {epoch}; {way_out}")
        said = f"loss {float(values[-1]):.4f}, " if values[-1] else ""
        self.bar.set_postfix_str(f"{said}{rate:.0f} images/s, {waited:.0%} waiting for data", refresh=False)
        self.bar.update(len(self.unread))
        self.unread = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the rest before the state is saved."""
        self._read()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close both."""
        self.bar.close()
        self.rows.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close both, if the error came while they were open."""
        if "bar" in self.__dict__:
            self.on_train_end(trainer, pl_module)
