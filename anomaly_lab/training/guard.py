"""What keeps a training exact: its random numbers, the last step, the layout of a resumed state."""

from collections.abc import Sequence
from typing import Any, final

import lightning as L
import numpy as np
import torch
from torch.optim import Optimizer

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import here


@final
class Guard(L.Callback):
    """Seeds torch from (seed, epoch) at each epoch start, and stops after the last step.

    It also lays out a resumed state, and has its random numbers go on where they were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random: dict[str, torch.Tensor] = {}  # of a resumed state

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep where the random numbers are, which a state within an epoch goes on from."""
        checkpoint["random"] = {
            name: drawn.get_rng_state() for name, drawn in generators(pl_module.device).items()
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take where the random numbers were; states that were saved before this was kept have none."""
        self.random = checkpoint.get("random", {})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lay out a resumed optimizer's state. ConfigError: there is nothing that could learn."""
        learns = any(optimizer.param_groups for optimizer in trainer.optimizers)
        if pl_module.automatic_optimization and not learns:
            name = type(pl_module).__name__
            way_out = (
                "return an optimizer, or derive the method from FittedMethod if it learns without gradients"
            )
            raise ConfigError(f"{name}.configure_optimizers gives no optimizer; {way_out}")
        if trainer.global_step:
            lay_out(trainer.optimizers)
        for name, drawn in generators(pl_module.device).items() if self.random else ():
            if name in self.random:  # else it was saved on another kind of device
                drawn.set_rng_state(self.random[name].cpu())
        if self.random and here.rank() and drops(pl_module):  # what was kept are the first rank's numbers
            self._draw_from(trainer.current_epoch, trainer.global_step, here.rank())

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make whatever is random inside the networks a function of (seed, epoch).

        Ranks draw alike, each for the whole batch; but what a network drops each must draw by itself.
        """
        own = [here.rank()] if here.rank() and drops(pl_module) else []
        self._draw_from(trainer.current_epoch, *own)

    def _draw_from(self, *address: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence([self.seed, *address]).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where the recipe says, also within an epoch."""
        assert isinstance(pl_module, AnomalyMethod)
        trainer.should_stop = pl_module.automatic_optimization and trainer.global_step >= pl_module.plan.steps


def drops(method: torch.nn.Module) -> bool:
    """Say whether some part drops values, or paths, at random while it trains."""
    named = ((part, type(part).__name__) for part in method.modules())
    return any("Drop" in name and (getattr(p, "p", 0) or getattr(p, "drop_prob", 0)) for p, name in named)


def generators(device: torch.device) -> dict[str, Any]:
    """Return, by type of device, what knows torch's random state there; that of the CPU is always there."""
    return {"cpu": torch} | ({} if device.type == "cpu" else {device.type: getattr(torch, device.type)})


def lay_out(optimizers: Sequence[Optimizer]) -> None:
    """Lay out a resumed state as its weights lie now: fused kernels walk both as they lie in memory."""
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            for name, value in state.items():
                if value.shape == weight.shape:
                    state[name] = torch.empty_like(weight).copy_(value)
