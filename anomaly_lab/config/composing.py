"""From overrides to one composed config, by Hydra: of the job that the command line runs, or from Python."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from anomaly_lab.config import own_code
from anomaly_lab.config.building import AGAIN, VERSION_BASE
from anomaly_lab.errors import ConfigError

# Words of a sweep with which each cell is composed, after its own options; the config that Hydra composes
# before any cell is not, as an option of its own may not know their keys.
HELD: list[str] = []
GROUPS = ("model", "data", "synthesis", "trainer", "logger")


class Composition(NamedTuple):
    """What was asked for."""

    cfg: DictConfig
    choices: dict[str, str]  # the option of each group
    overrides: list[str]  # as they were given
    sweeping: bool  # whether it is one job of several
    compose_recipe: Callable[[], DictConfig]
    group: str | None = None  # of a sweep: the experiment's name, the tag if one was given, or the time

    @property
    def recipe(self) -> DictConfig:
        """What the same model= and data= compose to with nothing else given; it takes as long as a config."""
        return self.compose_recipe()

    @property
    def typed(self) -> list[str]:
        """The overrides as they were typed; those of a sweep's job hold what Hydra has read instead."""
        return typed_words() if self.sweeping else self.overrides

    @property
    def folder(self) -> Path:
        """Where the run directories of this method, data set and category go."""
        return Path(self.cfg.runs, self.choices["model"], self.choices["data"], self.cfg.data.category)

    @property
    def retries(self) -> bool:
        """Whether a run that failed before is tried again: always alone, in a sweep only if asked for."""
        return not self.sweeping or bool(self.cfg.retry == "failed")

    def described(self, differs: dict[str, Any]) -> dict[str, Any]:
        """Return what a manifest says of the asking, as plain types; ``differs`` is from the recipe."""
        tags = {"tag": self.cfg.tag, "tags": list(self.cfg.tags)}
        return {"choices": self.choices, **tags, "seed": self.cfg.seed, "differs": differs}


def typed_words() -> list[str]:
    """Return the command line, as it was typed but for the order of its words."""
    return [*sys.argv[1:], *HELD]


def of_job(cfg: DictConfig) -> Composition:
    """Return what Hydra composed for the job that it now runs."""
    hydra: Any = HydraConfig.get()
    recipe = _recipe(hydra)
    return _composition(cfg, hydra, lambda: recipe)


def composed(overrides: Sequence[str], config_dir: Path | None = None) -> Composition:
    """Compose from Python as the command line does; ConfigError: it would be a sweep."""
    store_experiments()
    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"config_dir: {config_dir} is no folder; give that of your recipes")
        own_code.find_own(config_dir)
    with _hydra(config_dir):
        cfg = compose("config", list(overrides), return_hydra_config=True)

    def recipe() -> DictConfig:
        with _hydra(config_dir):
            return _recipe(hydra)

    hydra = cfg.hydra
    found = _composition(cfg, hydra, recipe)
    if found.sweeping:
        raise ConfigError(
            "a sweep runs on the command line: python -m anomaly_lab experiment=NAME, or -m KEY=A,B"
        )
    with open_dict(cfg):
        del cfg["hydra"]
    return found._replace(overrides=list(overrides))


def first_values(overrides: Sequence[str]) -> list[str]:
    """Return the first value of each key that the experiment among these overrides sweeps and they do not."""
    store_experiments()
    with _hydra(None):
        params = compose("config", list(overrides), return_hydra_config=True).hydra.sweeper.params or {}
        given = {word.partition("=")[0].lstrip("+") for word in overrides}
        parser = OverridesParser.create()
        words = [parser.parse_override(f"{key}={value}") for key, value in params.items() if key not in given]
    swept = [word for word in words if word.is_sweep_override()]
    firsts = [f"{word.key_or_group}={next(word.sweep_string_iterator())}" for word in swept]
    return firsts + [str(word.input_line) for word in words if not word.is_sweep_override()]


def store_experiments() -> None:
    """Make the folder experiments/ a config group: one is a folder inside conf/, or what is stored."""
    for file in (own_code.ROOT / "experiments").glob("*.yaml"):
        content = _experiment(file, file.stat().st_mtime_ns)
        ConfigStore.instance().store(file.stem, content, group="experiment", package="_global_", **AGAIN)


@lru_cache(maxsize=256)
def _experiment(file: Path, stamp: int) -> Any:  # noqa: ARG001 - edited, it is another
    return OmegaConf.load(file)


def _composition(cfg: DictConfig, hydra: DictConfig, recipe: Callable[[], DictConfig]) -> Composition:
    chosen = dict(hydra.runtime.choices)
    chosen.setdefault("logger", ",".join(cfg.get("logger", ())))  # Hydra keeps no choice of several options
    if several := [group for group in GROUPS if group not in chosen]:
        way_out = f"to run several: -m {several[0]}=A,B"
        raise ConfigError(f"{several[0]}: takes one option, not a list; {way_out}")
    choices = {group: chosen[group] for group in GROUPS}
    sweeping = hydra.mode == RunMode.MULTIRUN
    given = list(hydra.overrides.task)
    return Composition(cfg, choices, given, sweeping, recipe, _group(cfg, hydra) if sweeping else None)


def _group(cfg: DictConfig, hydra: DictConfig) -> str:
    """Return what the jobs of a sweep have in common; with a tag it is the same when the sweep goes on."""
    experiment = hydra.runtime.choices.get("experiment")
    if experiment not in {None, "null"}:
        return str(experiment)
    tagged = any(word.startswith("tag=") for word in hydra.overrides.task)
    return str(cfg.tag) if tagged else Path(hydra.sweep.dir).name


def _recipe(hydra: DictConfig) -> DictConfig:
    choices = hydra.runtime.choices
    sources = [source.path for source in hydra.runtime.config_sources]
    return _as_composed(choices["model"], choices["data"], _stamps(sources))


def _stamps(sources: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the recipes of all sources with the times of their last changes: edited, they are others."""
    folders = [Path(source.removeprefix("file://")) for source in sources if "/" in source]
    files = (file for folder in folders for file in folder.glob("*/*.yaml"))
    return tuple((str(file), file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=64)
def _as_composed(model: str, data: str, stamps: tuple[tuple[str, int], ...]) -> DictConfig:  # noqa: ARG001
    """Return the config of a recipe with nothing else given; a sweep mostly asks for the same again.

    The stamps are there for the memo alone: recipes that were edited since are composed anew.
    """
    return compose("config", [f"model={model}", f"data={data}"])


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator[None]:
    """Let Hydra read conf/ and perhaps a folder besides, also inside somebody's own Hydra application."""
    searched = create_config_search_path(str(own_code.ROOT / "conf"))
    if config_dir is not None:
        schema = SearchPathQuery(provider="schema")
        searched.prepend("command-line", f"file://{config_dir.resolve()}", schema)
    theirs = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        if VERSION_BASE:
            version.setbase("1.3")
        Hydra.create_main_hydra2("anomaly_lab", searched)
        yield
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = theirs
