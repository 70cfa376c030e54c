"""A config that a run directory keeps: it says everything itself, so what points elsewhere is refused."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.errors import RunError
from anomaly_lab.runs.reading import one_line, read_text

DEEPEST = 32  # mappings and lists in each other; a config has a few


def read_kept(file: Path) -> DictConfig:
    """Return the config of a run directory, which may be a stranger's; nothing in it is resolved.

    Raises:
        RunError: it is no config, or none that a run wrote: a run repeats nothing by an alias, which could
            multiply without end, and resolves ``${...}``, which could read the environment.
    """
    text = read_text(file)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise RunError(f"{file}: is nested deeper than {DEEPEST}, so no run wrote it")
            if getattr(event, "anchor", None):
                raise RunError(
                    f"{file}: has an anchor or alias, {one_line(event.anchor)}, so no run wrote it"
                )
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise RunError(f"{file}: has {one_line(event.value)}, where a run writes the value itself")
        cfg = OmegaConf.create(text)
    except RunError:
        raise
    except Exception as error:  # YAML's, OmegaConf's, or that of a number of thousands of digits
        raise RunError(f"{file}: cannot be read as a config ({one_line(error)})") from error
    if not isinstance(cfg, DictConfig):
        raise RunError(f"{file}: cannot be read as a config (holds no mapping)")
    return cfg
