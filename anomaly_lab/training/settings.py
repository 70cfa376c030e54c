"""What a run trains on: device, precision, length."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, final

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from torch import nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here
from anomaly_lab.ranks.outer import launched
from anomaly_lab.training.saving import DirectCheckpoints
from anomaly_lab.training.together import Ranks, Together
from anomaly_lab.types import SAME_RUN

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The arguments of a Lightning trainer that a recipe or a user sets.

    Attributes:
        device: ``auto`` takes CUDA, else the CPU; MPS only when asked for.
        devices: processes that share the run on each machine, one a GPU; ``auto`` takes all GPUs, or two
            processes where there is none. ``data.batch_size`` is the batch of all of them.
        nodes: machines; more than one wants a launcher that starts a process for each device.
        max_epochs, max_steps: training ends at the first of the two; -1 means no limit.
        step_limit: cuts training short whatever the recipe says; ``trainer=debug`` sets it. 0 makes no step,
            for a method whose weights come trained.
        save_minutes: the state to resume from is saved at most this often, and more rarely where that would
            take more than a twentieth of the time; 0 saves it after each step.
        tf32: whether a GPU may multiply float32 with 10 bits of mantissa, in mixed precision also where
            float32 is kept on purpose. torch's own default does so in convolutions.
        deterministic: ``strict`` makes an operation without a deterministic kernel an error, ``warn`` a
            warning; ``none`` also lets cuDNN time its kernels and take the fastest.
        compile: whether torch.compile makes kernels of the networks; where it cannot, they run as they are.
    """

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], SAME_RUN]
    # The same images, batches, random numbers and sums, but for the order of additions.
    devices: Annotated[int | Literal["auto"], SAME_RUN]
    nodes: Annotated[int, SAME_RUN]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: int
    max_steps: int
    step_limit: int | None
    save_minutes: Annotated[float, SAME_RUN]
    tf32: bool
    deterministic: Literal["strict", "warn", "none"]
    compile: bool

    def accelerator(self) -> str:
        """Return the device to run on. ConfigError: the one asked for is not there."""
        there = {
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "cpu": True,
            "auto": True,
        }
        if not there[self.device]:
            raise ConfigError(f"trainer.device: {self.device} is not available here; give trainer.device=cpu")
        device = ("cuda" if there["cuda"] else "cpu") if self.device == "auto" else self.device
        if self.precision == "16-mixed" and device == "cpu":
            raise ConfigError("trainer.precision: 16-mixed needs a GPU; give bf16-mixed or 32-true")
        return device

    def local_ranks(self) -> int:
        """Return how many processes share the run on each machine. ConfigError: the device is for one."""
        device = self.accelerator()
        gpus = torch.cuda.device_count() if device == "cuda" else 2
        place = launched()
        alone = gpus if place is None else place.size // max(self.nodes, 1)
        count = alone if self.devices == "auto" else self.devices
        if count < 1 or self.nodes < 1:
            raise ConfigError(f"trainer.devices={self.devices}, trainer.nodes={self.nodes}: give at least 1")
        if device == "cuda" and count > gpus:
            raise ConfigError(f"trainer.devices: {count}, but {gpus} GPUs are seen here; give at most these")
        if count * self.nodes > 1 and device == "mps":
            raise ConfigError("trainer.devices: mps has one; give trainer.devices=1")
        if count * self.nodes > 1 and self.compile:
            raise ConfigError("trainer.compile: kernels are made on one device; give trainer.compile=false")
        return count

    def ranks(self) -> int:
        """Return how many processes share the run. ConfigError: as above, or a launcher started others."""
        count = self.local_ranks() * self.nodes
        place = launched()
        given = f"trainer.devices={self.devices}, trainer.nodes={self.nodes}"
        if place is None and self.nodes > 1:
            way_out = "start them by srun or torchrun, trainer.nodes on the command line (docs/devices.md)"
            raise ConfigError(f"{given}: several machines want a process for each device; {way_out}")
        if place is not None and place.size != count:
            started = f"{place.by} started {place.size} processes"
            raise ConfigError(
                f"{given} make {count}, but {started}; give these as trainer.devices and .nodes"
            )
        return count

    def crew(self) -> tuple[int, int, str]:
        """Return how many processes share the run, how many of them a machine, and the device of each."""
        return self.ranks(), self.local_ranks(), self.accelerator()

    def steps(self, batches: int) -> int:
        """Return how many optimizer steps a training has whose epochs have so many batches."""
        wanted = (self.max_steps, self.max_epochs if self.max_epochs < 0 else self.max_epochs * batches)
        limits = [limit for limit in (*wanted, self.step_limit) if limit is not None and limit >= 0]
        if not limits or 0 in wanted:
            lengths = f"trainer.max_epochs={self.max_epochs}, trainer.max_steps={self.max_steps}"
            raise ConfigError(f"{lengths}: give one of them, at least 1; -1 means no limit")
        return min(limits)

    def compile_networks(self, method: nn.Module) -> None:
        """Have kernels made for each network at its first call, if asked for; where it cannot be, say why."""
        if not self.compile:
            return
        try:
            torch.compile(torch.sin)(torch.ones(4, device=self.accelerator()))
        except Exception as error:  # a missing compiler, library or header: each raises its own
            text = "trainer.compile: torch.compile does not work here (%s); runs uncompiled"
            log.warning(text, type(error).__name__)
            return
        torch._dynamo.config.suppress_errors = True  # a network that cannot be compiled runs as it is
        for network in method.children():
            network.compile()

    def build(
        self, path: Path, epochs: int, callbacks: Sequence[L.Callback], loggers: Sequence[Logger]
    ) -> L.Trainer:
        """Return a trainer of so many epochs, the last of which a callback may cut.

        It keeps no record of its own. Lightning's own max_steps is not used: a state saved at an epoch's end
        resumes inexactly with it (2.6.6).
        """
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        # Both advise on workers, Lightning on logging intervals, too; these are decided by the recipe.
        warnings.filterwarnings("ignore", module=r"lightning|torch\.utils\.data")
        # What nobody reads need not be filled with NaN first, which deterministic algorithms otherwise do.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        where: dict[str, Any] = {"devices": 1}
        plugins: list[Any] = [DirectCheckpoints()]
        if here.size() > 1:
            where = {"devices": self.local_ranks(), "num_nodes": self.nodes, "use_distributed_sampler": False}
            where["strategy"] = Together(Ranks(self.local_ranks()))
        else:
            plugins.append(LightningEnvironment())  # SLURM's would keep a state of its own
        return L.Trainer(
            accelerator=self.accelerator(),
            **where,
            plugins=plugins,
            precision=self.precision,
            default_root_dir=path,
            max_epochs=epochs,
            deterministic={"strict": True, "warn": "warn", "none": False}[self.deterministic],  # type: ignore[arg-type]
            benchmark=self.deterministic == "none",
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
