"""The keys that a command line sweeps, with their values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from anomaly_lab.errors import ConfigError


class Axis(NamedTuple):
    """A key with its values, as overrides: ``KEY=VALUE``."""

    key: str
    words: Sequence[str]


def given(params: Mapping[str, Any] | None, arguments: Iterable[str], loader: Any) -> list[Override]:
    """Return what was given for each key, once: by the command line, else by an experiment's ``params``.

    Args:
        params: by key, the texts that an experiment has; a list stands for its items.
        arguments: of the command line.
        loader: Hydra's, which knows the options of a glob.
    """
    kept = [f"{key}={_text(value)}" for key, value in (params or {}).items()]
    read = OverridesParser.create(config_loader=loader).parse_overrides([*kept, *arguments])
    return list({key_of(override): override for override in read}.values())


def key_of(override: Override) -> str:
    """Return the key, however it was to be set: ``++seed=1`` is of ``seed``."""
    return str(override.get_key_element()).lstrip("+")


def axis_of(override: Override) -> Axis:
    """Return the values of a key. ConfigError: they cannot be counted."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        word = f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else key
        return Axis(key_of(override), [override.input_line or word])
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: a grid takes single values, as {key}=1,2,3")
    return Axis(key_of(override), [f"{key}={value}" for value in override.sweep_string_iterator()])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
