"""Lightning on several ranks: a training step of the whole batch, of which each rank computes its share."""

from typing import Any, final

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.ranks.norms import NormsOfAll


@final
class Ranks(ClusterEnvironment):
    """Tells Lightning of the ranks that are there; it starts none, as it would give each the whole command.

    Args:
        devices: ranks on each machine.
    """

    def __init__(self, devices: int) -> None:
        super().__init__()
        self.devices = devices

    @property
    def creates_processes_externally(self) -> bool:
        """They are there."""
        return True

    @property
    def main_address(self) -> str:
        """Nobody asks, as the ranks have met."""
        raise NotImplementedError

    @property
    def main_port(self) -> int:
        """As above."""
        raise NotImplementedError

    @staticmethod
    def detect() -> bool:
        """Say that it is not to be chosen unasked."""
        return False

    def world_size(self) -> int:
        """Return the number of all ranks."""
        return here.size()

    def set_world_size(self, size: int) -> None:
        """It stands."""

    def global_rank(self) -> int:
        """Return the number of this one."""
        return here.rank()

    def set_global_rank(self, rank: int) -> None:
        """It stands."""

    def local_rank(self) -> int:
        """Return its number on this machine."""
        return here.local_rank()

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return here.rank() // self.devices


@final
class Together(DDPStrategy):
    """DDP that gives the gradient of the whole batch's loss, also where the ranks' shares of it differ.

    A method without weights to learn is not wrapped: it has no gradients to exchange.
    """

    def __init__(self, environment: Ranks) -> None:
        # The norms keep their statistics alike by themselves.
        super().__init__(cluster_environment=environment, broadcast_buffers=False)

    def configure_ddp(self) -> None:
        """Have gradients exchanged, if there are any."""
        assert isinstance(self.model, AnomalyMethod)
        self._ddp_kwargs["find_unused_parameters"] = self.model.partial
        if any(weight.requires_grad for weight in self.model.parameters()):
            super().configure_ddp()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of the whole batch; what flows back from it is this rank's share, times the ranks.

        DDP takes the mean of what flows back.
        """
        method = self.lightning_module
        assert method is not None
        data = method.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, AnomalyDataModule)
        step = data.step(args[1])
        if not method.automatic_optimization:  # it takes its images in, and nothing of another rank's
            return super().training_step(*args, **kwargs) if step.mine else None
        with here.stepping(step), NormsOfAll():
            loss = super().training_step(*args, **kwargs)
        assert isinstance(loss, Tensor)
        own = loss * (step.mine / step.all)
        whole = exchange.summed(own)
        share = own * here.size()
        return share + (whole - share).detach()

    def barrier(self, name: str | None = None) -> None:
        """Wait for the others, but where only the first one is: it alone saves."""
        if name != "Trainer.save_checkpoint" and here.size() > 1:
            exchange.agreed(0)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:  # noqa: A002, FBT001, FBT002
        """Take a decision as all ranks see it, on the CPU."""
        said = exchange.gathered(decision)
        return min(said) if all else max(said)

    def setup_distributed(self) -> None:
        """The ranks have met."""
        self.set_world_ranks()
