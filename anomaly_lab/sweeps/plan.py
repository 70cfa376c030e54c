"""What a sweep runs: every combination of the values given, each checked before the first begins."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple, final

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.utils import get_class
from omegaconf import DictConfig, flag_override, open_dict

from anomaly_lab.config.checked import Checked, flat, hashed
from anomaly_lab.config.messages import explained, near
from anomaly_lab.errors import ConfigError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.sweeps.axes import Axis, axis_of

ALL = "all"  # the category that stands for all that are on the disk
CATEGORY = "data.category"


class Facts(NamedTuple):
    """What a checked config comes to.

    Attributes:
        values: what its hash is of, by dotted key.
        config: all of it, resolved, by dotted key.
        weights: the keys that name weights to start from.
    """

    values: dict[str, Any]
    config: dict[str, Any]
    weights: frozenset[str]

    def changed_from(self, first: "Facts") -> "Facts | None":
        """Return the entries that are not those of ``first``; None if it has other keys."""
        if self.values.keys() != first.values.keys() or self.config.keys() != first.config.keys():
            return None
        values = {key: value for key, value in self.values.items() if first.values[key] != value}
        config = {key: value for key, value in self.config.items() if first.config[key] != value}
        return Facts(values, config, self.weights)

    def with_all(self, changes: Sequence["Facts"]) -> "Facts":
        """Return these with changes, of which no two are of one key."""
        values = dict(self.values)
        config = dict(self.config)
        for change in changes:
            values |= change.values
            config |= change.config
        return Facts(values, config, self.weights)


@final
class Family:
    """The cells of one choice of options: composed once, and then changed value by value."""

    def __init__(self, cfg: DictConfig, words: Sequence[str], typed: Sequence[str]) -> None:
        """Take what Hydra composed of ``words``, options alone, with its own node."""
        self.choices: dict[str, str] = dict(cfg.hydra.runtime.choices)
        self.hydra: DictConfig = cfg.hydra
        with open_dict(cfg):
            del cfg["hydra"]
        self.cfg = cfg
        self.words = list(words)
        self.typed = typed
        self.parser = OverridesParser.create()

    def composed(self, words: Sequence[str]) -> DictConfig:
        """Return the config with keys set as Hydra sets them. ConfigError: one of them cannot be."""
        cfg = copy.deepcopy(self.cfg)
        try:
            ConfigLoaderImpl._apply_overrides_to_config(self.parser.parse_overrides(list(words)), cfg)
        except Exception as error:
            raise self._said(explained(error), words) from error
        return cfg

    def job(self, words: Sequence[str], number: int) -> DictConfig:
        """Return the config of a job as a launcher hands it over, with Hydra's node."""
        cfg = self.composed(words)
        with open_dict(cfg), flag_override(cfg, "struct", values=False):
            cfg.hydra = copy.deepcopy(self.hydra)
            cfg.hydra.overrides.task = [*self.words, *words]
            cfg.hydra.job.num = number
            cfg.hydra.job.id = str(number)
        return cfg

    def checked(self, words: Sequence[str]) -> Checked:
        """Return a checked config of these values. ConfigError: it is none."""
        cfg = self.composed(words)
        try:
            return Checked.of(cfg, cfg.get("allow") or (), overrides=self.typed)
        except ConfigError as error:
            raise self._said(error, words) from error

    def facts(self, words: Sequence[str]) -> Facts:
        """Return what these values come to. ConfigError: one of them cannot be."""
        checked = self.checked(words)
        weights = frozenset(leaf.path for leaf in checked.leaves if leaf.pretrained)
        return Facts(checked.values, dict(flat(checked.config)), weights)

    def expanded(self, axes: Sequence[Axis]) -> list[Axis]:
        """Return the axes with ``data.category=all`` as every category on the disk."""
        return [self._categories(axes, axis) if _is_all(axis) else axis for axis in axes]

    def _categories(self, axes: Sequence[Axis], asked: Axis) -> Axis:
        if len(asked.words) > 1 or any(axis.key == "data.root" and len(axis.words) > 1 for axis in axes):
            raise ConfigError(f"{CATEGORY}={ALL}: stands alone, with one data.root")
        others = [axis.words[0] for axis in axes if axis.key != CATEGORY]
        data = self.composed(others).data
        kind: Any = get_class(data._target_)
        names = kind.categories(data.root)
        return Axis(CATEGORY, [f"{CATEGORY}={name}" for name in names])

    def _said(self, error: BaseException, words: Sequence[str]) -> ConfigError:
        return ConfigError(f"{error} (in: {' '.join([*self.words, *words])}); nothing has run")


class SweepCell(NamedTuple):
    """One combination.

    Attributes:
        overrides: all of them, as Hydra takes them.
        values: those that are of no option.
        made_from: is alike for cells that are made from the same data and weights.
        retry: whether it is tried again if it failed before.
    """

    overrides: list[str]
    directory: RunDirectory
    family: Family
    values: list[str]
    made_from: str
    seed: int
    retry: bool


def planned(
    compose: Callable[[list[str]], DictConfig],
    is_group: Callable[[Override], bool],
    overrides: Sequence[Override],
    typed: Sequence[str],
) -> list[SweepCell]:
    """Return the cells, by options first. ConfigError: one of them is no valid config; nothing has run then.

    Hydra takes a tenth of a second to compose a config. It is asked for each choice of options alone; values
    are set one at a time, and a combination of them is what each has changed, if no two changed the same.

    Args:
        compose: gives the config of overrides with Hydra's node.
        is_group: whether an override chooses an option.
        overrides: one for each key.
        typed: the command line, for messages.
    """
    options = [axis_of(override) for override in overrides if is_group(override)]
    values = [axis_of(override) for override in overrides if not is_group(override)]
    try:
        chosen = product(*(axis.words for axis in options))
        families = [Family(compose(list(words)), words, typed) for words in chosen]
    except Exception as error:
        raise explained(error) from error
    return [cell for family in families for cell in _cells(family, family.expanded(values))]


def _is_all(axis: Axis) -> bool:
    return axis.key == CATEGORY and ALL in {word.partition("=")[2] for word in axis.words}


def _cells(family: Family, axes: Sequence[Axis]) -> Iterator[SweepCell]:
    """Yield the cells of a family; every value of every axis is checked before the first is given."""
    start = [axis.words[0] for axis in axes]
    first = family.facts(start)
    changes: list[dict[str, Facts | None]] = []
    for place, axis in enumerate(axes):
        found = {word: family.facts([*start[:place], word, *start[place + 1 :]]) for word in axis.words[1:]}
        changes.append({word: facts.changed_from(first) for word, facts in found.items()})
    apart = _are_apart(changes)
    for combination in product(*(axis.words for axis in axes)):
        words = list(combination)
        if apart:
            named = [known.get(word) for known, word in zip(changes, words, strict=True)]
            facts = first.with_all([change for change in named if change is not None])
        else:
            facts = family.facts(words)
        yield _cell(family, words, facts)


def _are_apart(changes: Sequence[dict[str, Facts | None]]) -> bool:
    """Say whether no two axes change the same entry, so that the order of their changes is none."""
    touched: list[set[str]] = []
    for known in changes:
        if None in known.values():
            return False
        found = [change for change in known.values() if change is not None]
        touched.append({key for change in found for key in (*change.values, *change.config)})
    return all(not one & other for one, other in combinations(touched, 2))


def _cell(family: Family, words: list[str], facts: Facts) -> SweepCell:
    config = facts.config
    place = Path(config["runs"], family.choices["model"], family.choices["data"], config[CATEGORY])
    directory = RunDirectory.of(place, config["tag"], hashed(facts.values), config["seed"])
    sources = {
        key: value
        for key, value in config.items()
        if key.startswith("data.") or key.endswith("_target_") or key in facts.weights
    }
    return SweepCell(
        overrides=[*family.words, *words],
        directory=directory,
        family=family,
        values=words,
        made_from=json.dumps([id(family), sources], sort_keys=True),
        seed=config["seed"],
        retry=config["retry"] == "failed",
    )


def check_categories(cells: Sequence[SweepCell]) -> None:
    """See whether the categories are on the disk; nothing has run then.

    Raises:
        ConfigError, DataError: one is not, or its root is not.
    """
    known: dict[tuple[str, str], list[str]] = {}
    for made_from in dict.fromkeys(cell.made_from for cell in cells):
        sources = json.loads(made_from)[1]
        name, root, category = (sources[key] for key in ("data._target_", "data.root", CATEGORY))
        if (name, root) not in known:
            kind: Any = get_class(name)
            try:
                known[name, root] = kind.categories(root)
            except ConfigError:  # of this data set one is chosen by naming it
                known[name, root] = [category]
        if category not in known[name, root]:
            hint = near(category, known[name, root])
            raise ConfigError(f"{CATEGORY}={category}: {root} has no such category{hint}; nothing has run")
