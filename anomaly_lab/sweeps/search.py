"""A search: Optuna chooses the values of a trial by what came of those before."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, ValueType
from hydra.plugins.launcher import Launcher
from hydra.utils import get_class

from anomaly_lab.config.messages import near
from anomaly_lab.errors import ConfigError
from anomaly_lab.report.tables import value_of
from anomaly_lab.sweeps.axes import key_of
from anomaly_lab.sweeps.plan import ALL, SweepCell
from anomaly_lab.sweeps.states import Standing, State, states_of
from anomaly_lab.sweeps.sweep import launched, show_table, told
from anomaly_lab.sweeps.table import SHOWN

log = logging.getLogger(__name__)
# Keys that change what is measured, or on what: of several values a search would take the easiest.
SINGLE = re.compile(
    r"seed|tag|data|evaluation.*"
    r"|data\.(category|root|seed|defects.*|test_share|written.*|crop|center_crop|fit|masks)"
)
SIZE = "data.image_size"
ORACLE = "oracle"


@final
class Search:
    """Tries so many combinations and says which was best.

    Nothing is kept besides the runs: the same choices follow from the same seed and results, so the same
    command goes on where it was broken off.

    Raises:
        ConfigError: Optuna is not installed, or a number or the objective cannot be meant.
    """

    def __init__(self, trials: int, at_once: int, seed: int, objective: str, *, oracle: bool) -> None:
        try:
            import optuna  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError("hydra/sweeper=optuna: not there; pip install anomaly_lab[optuna]") from error
        if trials < 1 or at_once < 1:
            raise ConfigError(f"hydra.sweeper.trials={trials}, at_once={at_once}: give at least 1")
        if objective not in SHOWN:
            raise ConfigError(f"hydra.sweeper.objective: {objective} is none{near(objective, SHOWN)}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna: Any = optuna
        self.trials = trials
        self.at_once = at_once
        self.objective = objective
        self.oracle = oracle
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=at_once > 1)
        self.study: Any = optuna.create_study(direction="maximize", sampler=sampler)

    def done(
        self, space: Sequence[Override], plan: Callable[[list[str]], list[SweepCell]], launcher: Launcher
    ) -> int:
        """Try, print the trials and the best; return the exit code.

        Args:
            space: what was given for each key.
            plan: gives the cells of overrides.
            launcher: Hydra's, serial or not.
        """
        fixed = self._fixed(space)
        chosen = {
            override.get_key_element(): self._distribution(override)
            for override in space
            if override.is_sweep_override()
        }
        if SIZE in chosen and "evaluation.resolution=original" not in fixed:
            raise ConfigError(
                f"{SIZE}: masks of several sizes do not compare; give evaluation.resolution=original"
            )
        if not chosen:
            raise ConfigError("hydra/sweeper=optuna: give a key several values to choose from, as KEY=A,B")
        cells: list[SweepCell] = []
        states: dict[Path, State] = {}
        for start in range(0, self.trials, self.at_once):
            trials = [self.study.ask(chosen) for _ in range(min(self.at_once, self.trials - start))]
            words = [[f"{key}={_text(value)}" for key, value in trial.params.items()] for trial in trials]
            batch = [cell for some in words for cell in plan([*fixed, *some])]
            if not start:
                self._check_labels(batch[0])
            log.info("search: trials %d to %d of %d", start + 1, start + len(trials), self.trials)
            states |= launched(batch, states_of(batch), launcher)
            cells += batch
            for trial, cell in zip(trials, batch, strict=True):
                self._tell(trial, cell, states[cell.directory.path].standing)
        show_table(cells, states)
        self._show_best()
        return told(states, cells)

    def _fixed(self, space: Sequence[Override]) -> list[str]:
        words = []
        tag = "run"
        for override in space:
            key = key_of(override)
            if override.is_sweep_override():
                if SINGLE.fullmatch(key):
                    raise ConfigError(f"{key}: give a search one; of several it would take the easiest")
                continue
            if key == "data.category" and override.get_value_element_as_str() == ALL:
                raise ConfigError("data.category: give a search one category, not all")
            if key == "tag":
                tag = override.get_value_element_as_str()
                continue
            words.append(override.input_line or f"{key}={override.get_value_element_as_str()}")
        return [*words, f"tag={ORACLE}-{tag}" if self.oracle else f"tag={tag}"]

    def _distribution(self, override: Override) -> Any:
        """Return where Optuna draws a key from."""
        values = override.value()
        if override.value_type is ValueType.INTERVAL_SWEEP and isinstance(values, IntervalSweep):
            if values.start > values.end:  # type: ignore[operator]
                raise ConfigError(f"{override.input_line}: ends before it begins")
            kind = self._kind(isinstance(values.start, int) and isinstance(values.end, int))
            return kind(values.start, values.end, log="log" in values.tags)
        if override.value_type is ValueType.RANGE_SWEEP and isinstance(values, RangeSweep):
            numbers = list(values.range())
            if "log" in values.tags:
                line = f"{override.input_line}: a range has no logarithmic scale; give tag(log,interval(A,B))"
                raise ConfigError(f"{line}, with int(...) around the interval for whole numbers")
            return self._kind(isinstance(numbers[0], int))(numbers[0], numbers[-1], step=values.step)
        return self.optuna.distributions.CategoricalDistribution(list(override.sweep_string_iterator()))

    def _kind(self, whole: bool) -> Any:  # noqa: FBT001
        kinds = self.optuna.distributions
        return kinds.IntDistribution if whole else kinds.FloatDistribution

    def _check_labels(self, cell: SweepCell) -> None:
        """Raise ConfigError where the objective would be of real test labels and nobody asked for that."""
        data: Any = get_class(cell.family.composed(cell.values).data._target_)
        if data.real_labels and not self.oracle:
            way_out = "give data=synthetic_defects, or hydra.sweeper.oracle=true, which tags the runs so"
            raise ConfigError(
                f"hydra/sweeper=optuna: {self.objective} of data={cell.family.choices['data']} would choose "
                f"by the labels of its test set; {way_out}"
            )

    def _tell(self, trial: Any, cell: SweepCell, standing: Standing) -> None:
        if standing is not Standing.DONE:
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            return
        value = value_of(cell.directory.metrics(), self.objective)
        if value is None:
            line = f"{cell.directory.path}: has no {self.objective}; give another hydra.sweeper.objective"
            raise ConfigError(f"hydra/sweeper=optuna: {line}")
        self.study.tell(trial, value)

    def _show_best(self) -> None:
        found = [trial for trial in self.study.get_trials(deepcopy=False) if trial.value is not None]
        if not found:
            return
        best = max(found, key=lambda trial: trial.value)
        words = " ".join(f"{key}={_text(value)}" for key, value in best.params.items())
        kind = "real test labels: an oracle's choice" if self.oracle else "synthesised defects"
        print(f"\nbest {self.objective}, on {kind}: {best.value:.4f} with\n  {words}", flush=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
