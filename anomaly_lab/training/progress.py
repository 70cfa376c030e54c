"""What a training shows while it runs: a row a step in training.csv, and a line on the terminal."""

import csv
import errno
import io
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import lightning as L
import torch
from tqdm import tqdm

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import here

log = logging.getLogger(__name__)
# Steps; to read a value from an accelerator is to wait for it, so its losses are read in blocks.
READ_EVERY = 32
ROW = re.compile(r"[0-9]{1,18}(,[-+.0-9a-z]*){5}")  # of training.csv


@final
class Progress(L.Callback):
    """Shows step, loss, images/s, the share of waiting for data, the time left.

    A row a step goes to training.csv. It ends a training whose loss is not finite, before that state is
    saved.
    """

    def __init__(self, path: Path) -> None:
        self.file = path / "training.csv"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open both; rows that a killed run wrote after its last saved state are dropped."""
        assert isinstance(pl_module, AnomalyMethod)
        # A power cut may leave bytes that nobody wrote.
        old = self.file.read_text(errors="replace").splitlines() if self.file.exists() else []
        rows = [line.split(",") for line in old if ROW.fullmatch(line)]
        self.precision = pl_module.plan.precision
        begun = trainer.global_step
        kept = [row for row in rows if 0 < int(row[0]) <= begun]
        header = ("step", "epoch", "loss", "learning_rate", "images_per_second", "loader_seconds")
        self.rows = Rows(self.file, [header, *kept])
        every = 0.5 if sys.stderr.isatty() else 15.0
        look: dict[str, Any] = {"desc": "training", "unit": "step", "mininterval": every, "file": Errors()}
        self.bar = tqdm(total=pl_module.plan.steps, initial=begun, **look)
        # Step, epoch, loss, learning rate, images, seconds of waiting.
        self.unread: list[tuple[Any, ...]] = []
        self.clock = self.ended = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What was done between two epochs is no wait for data."""
        self.ended = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time that the loader let the device wait, and the first group's rate of the next step."""
        self.waited = time.monotonic() - self.ended
        self.rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a step."""
        learned = bool(outputs and trainer.optimizers)  # else there is neither loss nor learning rate
        loss = outputs["loss"].detach() if learned else None
        step = trainer.global_step
        epoch = trainer.current_epoch
        # Of several ranks each has a share of the batch, and the loss is that of all of it.
        images = len(batch.image) if here.size() == 1 else trainer.datamodule.step(batch_idx).all  # type: ignore[attr-defined]
        self.unread.append((step, epoch, loss, self.rate, images, self.waited))
        if batch.image.device.type == "cpu" or len(self.unread) == READ_EVERY:
            self.read()
        self.ended = time.monotonic()

    def read(self) -> None:
        """Write and show what was not read yet; a block of steps shares its images/s."""
        if not self.unread:
            return
        losses = [row[2] for row in self.unread if row[2] is not None]
        values = (
            [f"{loss:.7g}" for loss in torch.stack(losses).tolist()] if losses else [""] * len(self.unread)
        )
        before, self.clock = self.clock, time.monotonic()
        rate, waited = (sum(row[k] for row in self.unread) / max(self.clock - before, 1e-9) for k in (4, 5))
        for (step, epoch, _, learning_rate, _, wait), loss in zip(self.unread, values, strict=True):
            self.rows.add((step, epoch, loss, learning_rate, f"{rate:.1f}", f"{wait:.4f}"))
            if loss in {"nan", "inf", "-inf"}:
                mixed = "" if self.precision == "32-true" else " or use trainer.precision=32-true"
                way_out = f"lower model.learning_rate{mixed}"
                raise RunError(f"the loss is {loss} at step {step}, epoch {epoch}; {way_out}")
        said = f"loss {float(values[-1]):.4f}, " if values[-1] else ""
        self.bar.set_postfix_str(f"{said}{rate:.0f} images/s, {waited:.0%} waiting for data", refresh=False)
        self.bar.update(len(self.unread))
        self.unread = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the rest before the state is saved."""
        self.read()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close both."""
        self.bar.close()
        self.rows.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close both, if the error came while they were open."""
        if "bar" in self.__dict__:
            self.on_train_end(trainer, pl_module)


@final
class Rows:
    """A csv file that only grows; rows that a full disk does not take are written with later ones."""

    def __init__(self, path: Path, rows: Iterable[Sequence[Any]]) -> None:
        self.path = path
        self.file = path.open("wb", buffering=0)
        self.waiting = b""
        self.length = 0  # bytes of whole rows in the file
        self.full = False
        self.add(*rows)

    def add(self, *rows: Sequence[Any]) -> None:
        """Write rows, and what waits; the first time that the disk is full it is said."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self.waiting += text.getvalue().encode()
        try:
            if self.file.write(self.waiting) != len(self.waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.length += len(self.waiting)
            self.waiting = b""
        except OSError as error:
            self.file.truncate(self.length)  # no half row
            self.file.seek(self.length)
            if not self.full:
                log.warning(
                    "%s: cannot be written (%s); training goes on without its rows until it can be",
                    self.path,
                    error.strerror,
                )
            self.full = True

    def close(self) -> None:
        """Close the file, with what waits if there is room now."""
        if self.waiting:
            self.add()
        self.file.close()


@final
class Errors:
    """sys.stderr for what only shows how far a work is, which goes on when the stream was closed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        """Write, if anyone reads."""
        with suppress(BrokenPipeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Show what was written, if anyone reads."""
        with suppress(BrokenPipeError):
            sys.stderr.flush()
