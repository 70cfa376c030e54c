"""The state to resume from, saved whole or not at all."""

import logging
import time
from pathlib import Path
from typing import Any, final

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory

log = logging.getLogger(__name__)


@final
class Saving(Checkpoint):
    """Saves the state to resume from at the end of an epoch, whole or not at all, at most every so often."""

    def __init__(self, directory: RunDirectory, minutes: float, training_hash: str) -> None:
        self.directory = directory
        self.seconds = 60 * minutes
        self.training_hash = training_hash
        self.saved = time.monotonic()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
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
class DirectCheckpoints(TorchCheckpointIO):
    """Writes to the path itself.

    Lightning's way holds a second copy in memory and a third in the temporary folder.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write; whoever gave the path sees to it that no half file is left."""
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)
