"""A launcher of Hydra's that does each job in a process of its own, all of them at once, by a fork."""

import os
import sys
from collections.abc import Sequence
from types import ModuleType

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher

from anomaly_lab.config.building import AGAIN


class ForkingLauncher(Launcher):
    """As hydra-joblib-launcher's, without the seconds that new processes take; ``ended`` has their codes."""

    __module__ = "hydra_plugins.forking"  # Hydra takes plugins of this package alone
    ended: Sequence[int] = ()

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        children = [self._started(number, given) for number, given in enumerate(job_overrides)]
        type(self).ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return []

    def _started(self, number: int, given: Sequence[str]) -> int:
        if child := os.fork():
            return child
        try:
            setup_globals()
            config = self.context.config_loader.load_sweep_config(self.config, list(given))
            config.hydra.job.num = number
            config.hydra.job.id = str(number)
            done = run_job(
                task_function=self.task,
                config=config,
                hydra_context=self.context,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            os._exit(0 if done.status is JobStatus.COMPLETED else 1)
        finally:
            os._exit(2)


def register() -> str:
    """Make Hydra know it; return the override that chooses it."""
    plugins = Plugins.instance()  # which looks for the package once
    for name in ("hydra_plugins", "hydra_plugins.forking"):
        vars(sys.modules.setdefault(name, ModuleType(name))).setdefault("__path__", [])
    sys.modules["hydra_plugins"].forking = sys.modules["hydra_plugins.forking"]
    sys.modules["hydra_plugins.forking"].ForkingLauncher = ForkingLauncher
    plugins.register(ForkingLauncher)
    node = {"_target_": f"{ForkingLauncher.__module__}.{ForkingLauncher.__name__}"}
    ConfigStore.instance().store("forking", node, group="hydra/launcher", **AGAIN)
    return "hydra/launcher=forking"
