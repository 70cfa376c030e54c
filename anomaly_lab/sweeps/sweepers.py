"""Hydra's way in: the sweepers that it starts for a command line of several jobs, with any launcher."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, final

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.config.building import SINCE_1_4
from anomaly_lab.config.composing import HELD, typed_words
from anomaly_lab.sweeps.axes import axis_of, given

# Hydra 1.3 takes plug-ins of one package alone, though no module needs to be there; 1.4 takes true names.
PLACE = __name__ if SINCE_1_4 else "hydra_plugins.anomaly_lab"


@final
class Ended(Exception):  # noqa: N818 - it may be no error
    """A job or a sweep is over and all is told; ``code`` is what a process with it alone would end with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Combinations(Sweeper, ABC):
    """Every combination of the values of a command line and of an experiment.

    Args:
        params: by key, values that the command line wins over.
    """

    def __init__(self, params: Mapping[str, Any] | None) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over before a sweep."""
        self.loader: Any = hydra_context.config_loader
        self.config = config
        str(config.hydra.sweep.dir)  # asked for once: the time in it is kept, and is that of every job
        parts: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function}
        self.doing: Launcher = Plugins.instance().instantiate_launcher(**parts, config=config)

    @abstractmethod
    def sweep(self, arguments: list[str]) -> None:
        """Do it. Ended: something is not done."""

    def given(self, arguments: Sequence[str]) -> list[Override]:
        """Return one override for each key."""
        return given(self.params, arguments, self.loader)

    def planned(self, overrides: Sequence[Override]) -> list[Any]:
        """Return the cells of a grid. ConfigError: one of them is no valid config."""
        from anomaly_lab.sweeps.plan import planned  # noqa: PLC0415 - brings torch, which --help can do without

        return planned(self.composed, self.chooses, overrides, typed_words())

    def composed(self, words: list[str]) -> DictConfig:
        """Return the config of a job, with Hydra's node."""
        composed: DictConfig = self.loader.load_sweep_config(self.config, words)
        return composed

    def chooses(self, override: Override) -> bool:
        """Say whether an override chooses an option of a group."""
        return bool(self.loader.repository.group_exists(override.key_or_group))


@final
class Grid(Combinations):
    """Of runs: what is done is left alone, and the run directories tell what came of it."""

    def sweep(self, arguments: list[str]) -> None:
        """Do it. Ended: something is not done."""
        from anomaly_lab.sweeps.sweep import swept  # noqa: PLC0415 - as above

        if code := swept(self.planned(self.given([*arguments, *HELD])), self.doing):
            raise Ended(code)


@final
class Optuna(Combinations):
    """Of runs whose values Optuna chooses, by what came of those before.

    Args:
        params: as a grid's.
        trials: how many combinations are tried.
        at_once: how many are chosen before any of them is known, for a launcher that does several at once.
        seed: of the choice; with it and the runs that are done the same command chooses the same again.
        objective: the metric that shall be high.
        oracle: whether a test set with real labels may serve; its runs are then tagged so.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None,
        *,
        trials: int,
        at_once: int,
        seed: int,
        objective: str,
        oracle: bool,
    ) -> None:
        super().__init__(params)
        self.trials = trials
        self.at_once = at_once
        self.seed = seed
        self.objective = objective
        self.oracle = oracle

    def sweep(self, arguments: list[str]) -> None:
        """Do it. Ended: some trials are not done."""
        from anomaly_lab.sweeps.search import Search  # noqa: PLC0415 - as above

        search = Search(self.trials, self.at_once, self.seed, self.objective, oracle=self.oracle)
        space = self.given([*arguments, *HELD])
        if code := search.done(
            space, lambda words: self.planned(given(None, words, self.loader)), self.doing
        ):
            raise Ended(code)


@final
class Each(Combinations):
    """Of a verb, which keeps no run: all jobs are done, and the worst exit code counts."""

    def sweep(self, arguments: list[str]) -> None:
        """Do it. Ended: a job did not end well."""
        axes = [axis_of(override).words for override in self.given(arguments)]
        jobs = [list(words) for words in product(*axes)]
        codes = [0]
        for job in self.doing.launch(jobs, initial_job_idx=0):
            if job.status is not JobStatus.COMPLETED:
                error = job._return_value
                codes.append(error.code if isinstance(error, Ended) else 1)
        if code := max(codes):
            raise Ended(code)


def register() -> None:
    """Make them known to Hydra, by the names that conf/hydra/sweeper has."""
    resolvers: Any = OmegaConf
    add = resolvers.register_resolver if SINCE_1_4 else resolvers.register_new_resolver
    add("anomaly_lab.sweeper", lambda name: f"{PLACE}.{name}", replace=True)
    plugins = Plugins.instance()
    for sweeper in (Grid, Optuna, Each):
        plugins.register(sweeper)
        plugins.class_name_to_class[f"{PLACE}.{sweeper.__name__}"] = sweeper
