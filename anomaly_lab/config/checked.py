"""A config that was checked, once: its leaves, what makes it this run, the weights that it names."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Self, final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomaly_lab.config.frame import Frame
from anomaly_lab.config.messages import misfit
from anomaly_lab.config.schema import FOREIGN_TARGETS, PACKAGE, Leaf, MisfitError, Schema
from anomaly_lab.errors import ConfigError

LONGEST_TAG = 100  # bytes; it is a part of a folder's name


@final
@dataclass(frozen=True)
class Checked:
    """What a config says, every value of it where it belongs and of its type.

    Attributes:
        config: resolved, plain types.
        leaves: every value that something is built from.
        values: by dotted key, what `config_hash` is of: the values that make another run.
        config_hash: 64 hex digits; another one is another run.
        recipe_hash: 64 hex digits; another one means other weights.
        differs: by dotted key, the values that are not the recipe's and make another run.
    """

    config: dict[str, Any]
    leaves: list[Leaf]
    values: dict[str, Any]
    config_hash: str
    recipe_hash: str
    differs: dict[str, Any]

    @classmethod
    def of(
        cls,
        cfg: DictConfig,
        allow: Collection[str],
        recipe: DictConfig | None = None,
        overrides: Collection[str] = (),
    ) -> Self:
        """Return the checked config, or raise ConfigError with the full path and any near miss.

        Nothing is built.

        Args:
            cfg: as composed, with all its interpolations.
            allow: top-level modules outside this package that a ``_target_`` may name.
            recipe: what ``differs`` is said of; it may miss values.
            overrides: as they were typed, for the line that says how to type them.
        """
        try:
            config: Any = OmegaConf.to_container(cfg, resolve=True)
            leaves = Schema(Frame, allow).leaves(config)
            _check_frame(config)
            another = {"seed": config["seed"] - 1 if config["seed"] else 1}
            other: Any = OmegaConf.to_container(OmegaConf.merge(cfg, another), resolve=True)
        except MisfitError as error:
            typed = {key.lstrip("+"): text for key, _, text in (given.partition("=") for given in overrides)}
            raise ConfigError(misfit(error.value, error.want, error.path, typed)) from error
        except OmegaConfBaseException as error:
            missing = re.findall(r"mandatory value: (\S+)", str(error.msg))
            line = (
                f"{missing[0]} is missing: give {missing[0]}=VALUE"
                if missing
                else f"{error.full_key}: {error.msg}"
            )
            raise ConfigError(line.partition("\n")[0]) from error
        # What points to the seed counts alike for all, as a run's name has the seed.
        pairs = zip(leaves, Schema(Frame, allow).leaves(other), strict=True)
        follows = {leaf.path for leaf, one in pairs if leaf.value != one.value}
        values = {
            leaf.path: "follows the seed" if leaf.path in follows else _named(leaf)
            for leaf in leaves
            if not leaf.same_run
        }
        only = {leaf.path for leaf in leaves if leaf.evaluation_only}
        weights = {path: value for path, value in values.items() if path not in only}
        differs = {} if recipe is None else _differing(cfg, recipe, config, leaves)
        return cls(config, leaves, values, hashed(values), hashed(weights), differs)

    @property
    def hashes(self) -> tuple[str, str]:
        """The hash of the config, and of the part of it that the weights depend on."""
        return self.config_hash, self.recipe_hash

    @property
    def own_modules(self) -> list[str]:
        """The modules outside this package that its config names, each once."""
        targets = (leaf.value for leaf in self.leaves if leaf.path.endswith("_target_"))
        foreign = {target.rpartition(".")[0] for target in targets if target not in FOREIGN_TARGETS}
        return sorted(name for name in foreign if name.partition(".")[0] != PACKAGE)

    @property
    def weights(self) -> list[str]:
        """What the networks start from: imagenet, bundled, random or a file, each as the config says it."""
        return [leaf.value for leaf in self.leaves if leaf.pretrained]


def _check_frame(config: dict[str, Any]) -> None:
    tag = config["tag"]
    if (
        "/" in tag
        or not tag.isprintable()
        or len(tag.encode()) > LONGEST_TAG
        or not 0 <= config["seed"] < 2**32
    ):
        given = f"tag={tag[:LONGEST_TAG]!r}, seed={config['seed']}"
        tags = f"a tag has no slash, no sign that cannot be printed, and at most {LONGEST_TAG} bytes"
        raise ConfigError(f"{given}: {tags}; a seed lies in 0 .. 2^32 - 1")


def _named(leaf: Leaf) -> Any:
    """Return what a leaf counts as; a class of ours by its name, so that moving a file makes no other run."""
    if leaf.path.endswith("_target_") and leaf.value.startswith(f"{PACKAGE}."):
        return leaf.value.rpartition(".")[2]
    return leaf.value


def hashed(values: dict[str, Any]) -> str:
    """Return 64 hex digits of values by dotted key, in whatever order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted paths of a nested mapping with their values; a list is one value."""
    for key, value in node.items():
        yield from flat(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]


def _differing(
    cfg: DictConfig, recipe: DictConfig, resolved: dict[str, Any], leaves: list[Leaf]
) -> dict[str, Any]:
    """Return the values that are not the recipe's, but for those that make no other run.

    Both are compared unresolved, so that data.synthesis, which points to synthesis, is no second difference.
    What points to a value that makes no other run by itself, as ${textures}, differs where that does; what
    points to the seed follows it.
    """
    given, theirs = (dict(flat(OmegaConf.to_container(one))) for one in (cfg, recipe))
    values = dict(flat(resolved))
    ignored = {leaf.path for leaf in leaves if leaf.same_run}
    changed = {key for key, value in given.items() if key not in theirs or theirs[key] != value}
    moved = {f"${{{key}}}" for key in changed & ignored - {"seed"}}
    changed |= {key for key, value in given.items() if isinstance(value, str) and value in moved}
    return {key: values.get(key, given[key]) for key in given if key in changed - ignored}
