"""The recipes of runs, as their config.yaml tell: whether one was changed between them, and in what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from anomaly_lab.config.kept import plain_config
from anomaly_lab.errors import RunError
from anomaly_lab.report.run import CATEGORY, Run, shown
from anomaly_lab.runs.reading import one_line, read_text

ABSENT = "absent"  # the value of a key that a recipe did not have
# What no result depends on, and what follows something else: it makes no recipe another one.
FRAME = {"seed", "tag", "tags", "runs", "allow", "resume", "retry", "textures", "cache", "logger"}
MACHINE = {f"trainer.{name}" for name in ("device", "devices", "nodes", "save_minutes")}
MACHINE |= {f"data.{name}" for name in ("root", "workers", "max_megapixels", "memory_gb")}
ENDS = {"seed", "cache", "textures_gb"}
TWICE = "data.synthesis"  # what it holds stands under synthesis, too

Settings = Mapping[str, str]


def by_todays_recipes(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs with what differs from today's recipe, and a line for each recipe that was changed.

    A run says what differed from its recipe as that was then. Today's is the one that the last begun run of
    the method had, on the same data set. A run whose config cannot be read stays as it is.
    """
    found: list[Run] = []
    lines: list[str] = []
    for (model, data), group in groupby(runs, key=lambda run: (run.model, run.data)):
        mine = list(group)
        texts = {run.path: _text(run.path) for run in mine}
        if len(set(texts.values()) - {""}) < 2:
            found += mine
            continue
        settings = {path: _settings(text) for path, text in texts.items()}
        changes = _changes([(run, settings[run.path]) for run in mine if settings[run.path]])
        found += [_renewed(run, settings[run.path], changes) if settings[run.path] else run for run in mine]
        if changes:
            said = ", ".join(f"{one_line(key)} (now {value})" for key, value in sorted(changes.items()))
            lines.append(f"{model} on {data}: its recipe was changed between these runs, in {said}")
    return found, lines


def settings_of(path: Path) -> Settings:
    """Return what a run's config has, as texts by dotted key; empty if it cannot be read."""
    return _settings(_text(path))


def _text(path: Path) -> str:
    """Return a config without the lines that tell seeds and categories apart; empty if it cannot be read."""
    try:
        lines = read_text(path / "config.yaml").splitlines()
    except RunError:
        return ""
    return "\n".join(line for line in lines if not line.lstrip().startswith(("seed:", "category:")))


@lru_cache(maxsize=1024)
def _settings(text: str) -> Settings:
    pairs = _leaves(plain_config(text) or {}, "")
    return {key: _valued(key, value) for key, value in pairs if counts(key)}


def _leaves(node: Mapping[object, object], above: str) -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        key = f"{above}{name}"
        yield from _leaves(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]


def _valued(key: str, value: object) -> str:
    """Return a value as a text; a class counts by its name, as in a run's hash."""
    text = shown(value)
    return text.rpartition(".")[2] if key.endswith("_target_") else text


def counts(key: str) -> bool:
    """Say whether another value of a key is another recipe, be the run of any seed, category or machine."""
    parts = key.split(".")
    ours = parts[0] not in FRAME and key not in MACHINE and key != CATEGORY
    return ours and not ENDS & set(parts) and not f"{key}.".startswith(f"{TWICE}.")


def _changes(runs: Sequence[tuple[Run, Settings]]) -> dict[str, str]:
    """Return the keys of which runs tell different values of their recipe, with the last begun one's."""
    order = sorted(runs, key=lambda pair: pair[0].started)  # so that of those alike the last begun tells
    alike = {(tuple(sorted(run.differs)), id(settings)): (run, settings) for run, settings in order}
    changes: dict[str, str] = {}
    for key in sorted({key for _, settings in runs for key in settings}):
        told = [
            (run.started, settings.get(key, ABSENT))
            for run, settings in alike.values()
            if not _given(key, run.differs)
        ]
        if len({value for _, value in told}) > 1:
            changes[key] = max(told)[1]
    return changes


def _given(key: str, differs: Mapping[str, str]) -> bool:
    """Say whether a run was given a key, or another part in which it stands, so that it tells no recipe."""
    above = list(_above(key))
    parts = (*above, *(f"{part}._target_" for part in above))
    return any(part in differs for part in parts) or any(other.startswith(f"{key}.") for other in differs)


def _above(key: str) -> Iterator[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]


def _renewed(run: Run, settings: Settings, changes: Mapping[str, str]) -> Run:
    """Return the run with what of it differs from the recipe after the changes."""
    values = {
        key: settings.get(key, ABSENT) for key in changes if key in settings or not _given(key, run.differs)
    }
    others = {key: value for key, value in values.items() if value != changes[key]}
    kept = {key: value for key, value in run.differs.items() if key not in values}
    return replace(run, differs=kept | others) if values else run
