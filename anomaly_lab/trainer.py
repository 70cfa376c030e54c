"""What a run trains on: device, precision, length."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from anomaly_lab.errors import ConfigError


@final
@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The arguments of a Lightning trainer that a recipe or a user sets.

    Attributes:
        device: ``auto`` takes CUDA, else the CPU; MPS only when asked for.
        max_epochs, max_steps: training ends at the first of the two; -1 means no limit.
        step_limit: cuts training short whatever the recipe says; only ``trainer=debug`` sets it.
        save_minutes: the state to resume from is saved at the end of an epoch, at most this often.
        deterministic: ``strict`` makes an operation without a deterministic kernel an error, ``warn`` a warning.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: int
    max_steps: int
    step_limit: int | None
    save_minutes: float
    deterministic: Literal["strict", "warn", "off"]

    def accelerator(self) -> str:
        """Return the device to run on.

        Raises:
            ConfigError: the device asked for is not there.
        """
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True, "auto": True}
        if not there[self.device]:
            raise ConfigError(f"trainer.device: {self.device} is not available here; give trainer=default or trainer.device=cpu")
        return ("cuda" if there["cuda"] else "cpu") if self.device == "auto" else self.device

    def build(self, callbacks: Sequence[L.Callback], loggers: Sequence[Logger]) -> L.Trainer:
        """Return the trainer; it keeps no record and no checkpoint of its own."""
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        # Lightning advises on workers and logging intervals; both are decided by the recipe.
        warnings.filterwarnings("ignore", module="lightning")
        return L.Trainer(
            accelerator=self.accelerator(),
            devices=1,
            precision=self.precision,
            max_epochs=self.max_epochs,
            max_steps=self.max_steps if self.step_limit is None else self.step_limit,
            deterministic={"strict": True, "warn": "warn", "off": False}[self.deterministic],  # type: ignore[arg-type]
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
