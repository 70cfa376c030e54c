"""A config that a run directory keeps: it says everything itself, so what points elsewhere is refused."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.errors import RunError
from anomaly_lab.runs.reading import one_line, read_text

# libyaml's, where PyYAML was built with it: ten times as fast, to the same values.
QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 32  # mappings and lists in each other; a config has a few


def read_kept(file: Path) -> DictConfig:
    """Return the config of a run directory, which may be a stranger's; nothing in it is resolved.

    Raises:
        RunError: it is no config, or none that a run wrote: a run repeats nothing by an alias, which could
            multiply without end, and resolves ``${...}``, which could read the environment.
    """
    text = read_text(file)
    try:
        _check(file, text, yaml.SafeLoader)
        cfg = OmegaConf.create(text)
    except RunError:
        raise
    except Exception as error:  # YAML's, OmegaConf's, or that of a number of thousands of digits
        raise RunError(f"{file}: cannot be read as a config ({one_line(error)})") from error
    if not isinstance(cfg, DictConfig):
        raise RunError(f"{file}: cannot be read as a config (holds no mapping)")
    return cfg


def plain_config(text: str) -> dict[Any, Any] | None:
    """Return the plain values of such a config, in a fortieth of the time; None where `read_kept` raises."""
    try:
        _check(Path("config.yaml"), text, QUICK)
        content = yaml.load(text, Loader=QUICK)  # noqa: S506 - a safe one
    except Exception:  # as above
        return None
    return content if isinstance(content, dict) else None


def _check(file: Path, text: str, loader: Any) -> None:
    """Raise RunError for what no run writes, or what YAML raises."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RunError(f"{file}: is nested deeper than {DEEPEST}, so no run wrote it")
        if getattr(event, "anchor", None):
            raise RunError(f"{file}: has an anchor or alias, {one_line(event.anchor)}, so no run wrote it")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise RunError(f"{file}: has {one_line(event.value)}, where a run writes the value itself")
