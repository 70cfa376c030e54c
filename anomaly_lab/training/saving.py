"""The state to resume from, saved whole or not at all: every so often, and when the training shall stop."""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, final

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.training.progress import Progress

log = logging.getLogger(__name__)
SHARE = 1 / 20  # of a training's time, that saving may take


@final
class Saving(Checkpoint):
    """Saves the state to resume from after a step, whole or not at all.

    It does so at most every so often, and so that it takes a small share of the time; also after the first
    SIGINT or SIGTERM, which then ends the training. A second one ends it at once.
    """

    def __init__(
        self, directory: RunDirectory, minutes: float, training_hash: str, progress: Progress
    ) -> None:
        self.directory = directory
        self.seconds = 60 * minutes
        self.training_hash = training_hash
        self.progress = progress
        self.saved = time.monotonic()
        self.cost = 0.0  # seconds that the last save took
        self.asked: int | None = None  # the signal to stop
        self.before: dict[int, Any] = {}  # the handlers of these signals

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name the recipe in the checkpoint."""
        checkpoint["training_hash"] = self.training_hash

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to the signals, where there can be a state to save; who ignores one goes on to do so."""
        self.saved = time.monotonic()
        if not pl_module.automatic_optimization or threading.current_thread() != threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in {signal.SIG_IGN, None}:
                self.before[number] = signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, where a state holds all that the epoch has learned so far."""
        assert isinstance(pl_module, AnomalyMethod)
        ends = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.should_stop
        if not ends and pl_module.automatic_optimization and not len(pl_module.seen):
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch."""
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        wait = max(self.seconds, self.cost / SHARE) if self.seconds else 0
        overdue = here.first() and time.monotonic() - self.saved >= wait
        # All ranks stop after the same step, whichever of them was asked to.
        asked, due = exchange.agreed(self.asked or 0, overdue)
        if not asked and not due:
            return
        if asked:
            self.asked = asked
        if here.first():
            self._save(trainer)
        if asked:
            self._stop(asked)

    def _save(self, trainer: L.Trainer) -> None:
        self.progress.read()
        began = time.monotonic()
        try:
            with self.directory.replacing(self.directory.resume_checkpoint.name) as file:
                trainer.save_checkpoint(file)
        except RunError as error:  # a disk that is full for now does not end hours of training
            log.warning("%s; training goes on without it", error)
        else:
            if self.asked is not None:
                log.info("the state after step %d is saved", trainer.global_step)
        self.saved = self.progress.ended = time.monotonic()  # what was saved is no wait for data
        self.cost = self.saved - began

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked is not None:
            self._stop(number)
        self.asked = number
        # Nothing else may be called safely while a signal is handled.
        os.write(2, b"\nanomaly_lab: stops once this state is saved; again: stops at once\n")

    def _stop(self, number: int) -> None:
        """Let the signal do what it does elsewhere."""
        self._deaf()
        signal.raise_signal(number)

    def _deaf(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the signals to others; one that came after the last state was saved ends the run here."""
        self._deaf()
        asked, _ = exchange.agreed(self.asked or 0, 0)
        if asked:
            self._stop(asked)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the signals to others."""
        self._deaf()


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
