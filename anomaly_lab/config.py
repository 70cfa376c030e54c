"""What a config may say: `Frame` is the schema of its top level, a class's signature that of the node that names it."""

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import ConfigError
from anomaly_lab.loggers import Mirror
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.trainer import TrainerSettings
from anomaly_lab.types import EVALUATION_ONLY

GROUPS = ("model", "data", "synthesis", "trainer", "logger")
NODE = {"_target_": str, "_partial_": bool}
FOREIGN_TARGETS = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")
# What makes no other run; a seed makes one, but has its own part in the run directory's name.
IGNORED = (
    *("logger", "trainer.device", "trainer.devices", "trainer.save_minutes", "data.workers", "data.memory_gb"),
    *("cache", "model.backbone.cache", "data.root", "resume", "retry", "tag", "runs", "seed"),
    *(f"{at}synthesis.{of}textures_gb" for at in ("", "data.") for of in ("", "members.perlin_texture.")),
)


class MisfitError(ConfigError):
    """A value does not fit its annotation; the words are found when somebody reads them, which is seldom."""

    def __init__(self, value: Any, want: Any, path: str) -> None:
        self.value, self.want, self.path = value, want, path

    def __str__(self) -> str:
        from anomaly_lab.wording import misfit  # noqa: PLC0415 - most configs fit

        return misfit(self.value, self.want, self.path)


Leaf = tuple[str, Any, bool]  # dotted path, value (a float where one is wanted), whether it acts at evaluation only


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is measured; conf/config.yaml has the values."""

    resolution: Literal["network", "original"]
    fpr_limit: float
    target_fpr: float
    overlays: int
    bootstrap: int
    save_maps: bool
    poison: bool


@dataclass(frozen=True)
class Caching:
    """Where, and up to which size, frozen features are kept."""

    folder: str
    gigabytes: float


@dataclass(frozen=True)
class Frame:
    """The top level; what other keys point to comes first, so that an error names the key as it was written."""

    seed: int
    tag: str
    runs: str
    resume: bool
    retry: Literal["none", "failed"]
    evaluation: Annotated[Evaluation, EVALUATION_ONLY]
    cache: Caching
    synthesis: Synthesizer
    model: AnomalyMethod
    data: AnomalyDataModule
    trainer: TrainerSettings
    logger: Mirror


def validate(cfg: DictConfig) -> list[Leaf]:
    """Return the leaves, or raise ConfigError with the full path and any near miss; nothing is built, no data read."""
    try:
        return list(_leaves(OmegaConf.to_container(cfg, resolve=True), Frame, ""))
    except OmegaConfBaseException as error:
        missing = re.findall(r"mandatory value: (\S+)", str(error.msg))
        line = f"{missing[0]} is missing: give {missing[0]}=VALUE" if missing else f"{error.full_key}: {error.msg}"
        raise ConfigError(line.partition("\n")[0]) from error


def hashes(cfg: DictConfig) -> tuple[str, str]:
    """Return the config hash (another makes another run) and the recipe hash (other weights), 64 hex digits each."""
    leaves = _identity(cfg)
    parts = [{path: value for path, value, only in leaves if not (only and skip)} for skip in (False, True)]
    config, training = (hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for part in parts)
    return config, training


def differing(cfg: DictConfig, recipe: DictConfig) -> dict[str, Any]:
    """Return, by dotted key, the values that are not the recipe's, but for `IGNORED`; the recipe may miss values."""
    # Compared unresolved, so that data.synthesis, which points to synthesis, is no second difference.
    raw, recipe_raw = (dict(_flat(OmegaConf.to_container(c), "")) for c in (cfg, recipe))
    resolved = dict(_flat(OmegaConf.to_container(cfg, resolve=True), ""))
    changed = (key for key, value in raw.items() if key not in recipe_raw or recipe_raw[key] != value)
    return {key: resolved.get(key, raw[key]) for key in changed if not _ignored(key)}


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        yield from _flat(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]


def _ignored(path: str) -> bool:
    return f"{path}.".startswith(tuple(f"{key}." for key in IGNORED))


def _identity(cfg: DictConfig) -> list[Leaf]:
    neutral: Any = OmegaConf.merge(cfg, {"seed": 0})  # not only left out below: other keys point to it
    return [leaf for leaf in validate(neutral) if not _ignored(leaf[0])]


def _leaves(value: Any, want: Any, path: str) -> Iterator[Leaf]:
    """Yield the leaves of a value that has to fit an annotation."""
    origin, arguments = get_origin(want) or want, get_args(want)
    if origin is Annotated:
        marked = EVALUATION_ONLY in arguments[1:]
        yield from ((p, v, only or marked) for p, v, only in _leaves(value, arguments[0], path))
    elif origin in (Union, UnionType):
        yield from _first_fit(value, want, path)
    elif isinstance(value, dict):
        for key, wanted in _keys(value, want, path).items():
            yield from _leaves(value.get(key, "???"), wanted, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield from _list(value, want, path)
    else:
        yield path, _scalar(value, want, path), False


def _scalar(value: Any, want: Any, path: str) -> Any:
    if value == "???":
        raise ConfigError(f"{path} is missing: give {path}=VALUE")
    if type(value) is float and not abs(value) < float("inf"):  # NaN, too, is not below
        raise ConfigError(f"{path} must be finite, not {value}")
    if want is float and type(value) is int:
        return float(value)
    if want in (Any, type(value)) or any(value == x and type(value) is type(x) for x in get_args(want)):
        return value
    raise MisfitError(value, want, path)


def _first_fit(value: Any, want: Any, path: str) -> list[Leaf]:
    errors = []
    for alternative in get_args(want):
        try:
            return list(_leaves(value, alternative, path))
        except ConfigError as error:
            errors.append(error)
    # What does not fit deep inside one alternative says more than that no alternative fits.
    raise next(
        (error for error in errors if not isinstance(error, MisfitError) or error.path != path),
        MisfitError(value, want, path),
    )


def _list(value: list[Any], want: Any, path: str) -> list[Leaf]:
    origin, arguments = get_origin(want) or want, get_args(want)
    fixed = origin is tuple and ... not in arguments
    wants = arguments if fixed else (*arguments, Any)[:1] * len(value)
    if origin not in (list, tuple, Sequence, Any) or len(wants) != len(value):
        raise MisfitError(value, want, path)
    leaves = [leaf for i, child in enumerate(value) for leaf in _leaves(child, wants[i], f"{path}[{i}]")]
    nodes = any(not leaf[0].endswith("]") for leaf in leaves)
    return leaves if nodes else [(path, [leaf[1] for leaf in leaves], False)]


def _keys(node: dict[str, Any], want: Any, path: str) -> dict[str, Any]:
    """Return the annotation of each key that a mapping has or must have."""
    origin, schema = get_origin(want) or want, want
    if "_target_" in node:
        schema = _target(node, want, path)
    elif origin in (dict, Mapping, Any):
        return dict.fromkeys(node, (*get_args(want), Any, Any)[1])
    elif origin not in (Frame, Evaluation, Caching):
        raise MisfitError(node, want, path)
    parameters = list(inspect.signature(schema, eval_str=True).parameters.values())
    parameters = parameters[node.get("_partial_") is True :]  # the first argument comes at the call
    known = (NODE if "_target_" in node else {}) | {p.name: p.annotation for p in parameters}
    for key in (key for key in node if key not in known):
        raise ConfigError(f"{path}.{key} is no key{_near(key, known)}".lstrip("."))
    required = {p.name for p in parameters if p.default is p.empty}
    return {key: annotation for key, annotation in known.items() if key in node or key in required}


def _target(node: dict[str, Any], want: Any, path: str) -> Callable[..., Any]:
    """Return what a node names, if the call gives what is wanted; a `Callable` is wanted with ``_partial_: true``."""
    target: Callable[..., Any] = _located(node["_target_"], f"{path}._target_")
    later = get_origin(want) is Callable
    made = target if inspect.isclass(target) else inspect.signature(target, eval_str=True).return_annotation
    kind = get_args(want)[-1] if later else want
    if kind is not Any and node.get("_partial_", False) is not later:
        raise ConfigError(f"{path}._partial_ must be {str(later).lower()}")
    unchecked = kind is Any or (inspect.isclass(kind) and Protocol in kind.__bases__)
    if not unchecked and not (inspect.isclass(kind) and inspect.isclass(made) and issubclass(made, kind)):
        raise MisfitError(node, want, path)
    return target


def _located(target: Any, path: str) -> Any:
    module_name, _, name = str(target).rpartition(".")
    if target not in FOREIGN_TARGETS and not module_name.startswith(f"{__package__}."):
        raise ConfigError(f"{path}: {target} is neither in {__package__} nor one of {', '.join(FOREIGN_TARGETS)}")
    try:
        public = {k: v for k, v in vars(importlib.import_module(module_name)).items() if not k.startswith("_")}
    except ImportError as error:
        raise ConfigError(f"{path}: {target} cannot be imported: {error}") from error
    made_here = {k: v for k, v in public.items() if inspect.isclass(v) or inspect.isfunction(v)}
    own = {k: v for k, v in made_here.items() if v.__module__.startswith(module_name) and not inspect.isabstract(v)}
    if name not in own:
        raise ConfigError(f"{path}: {module_name} has no final class or function {name}{_near(name, own)}")
    return own[name]


def _near(word: Any, choices: Iterable[str]) -> str:
    from anomaly_lab.wording import near  # noqa: PLC0415 - as above

    return near(word, choices)
