"""The runs below a folder, as their own files tell of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, final

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import one_line

Status = Literal["done", "failed", "unfinished"]


@final
@dataclass(frozen=True)
class Run:
    """What a report needs of a run.

    Attributes:
        model, data, synthesis: recipes' names.
        differs: by dotted key, the values that are not the recipe's.
        metrics: empty unless it is done.
        seconds: of the whole run; None unless it is done.
        started: ISO 8601, empty if unknown.
        error: why it failed, if it did.
    """

    path: Path
    model: str
    data: str
    category: str
    synthesis: str
    tag: str
    seed: int
    status: Status
    differs: dict[str, Any]
    metrics: dict[str, float]
    doubts: Sequence[str]
    seconds: float | None
    started: str
    hardware: str
    command: str
    commit: str
    error: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a run directory that lies at MODEL/DATA/CATEGORY/NAME. RunError: a file of it is damaged."""
        directory = RunDirectory(path)
        manifest = directory.manifest()
        kind = manifest.get("status")
        status: Status = "done" if kind == "done" else "failed" if kind == "failed" else "unfinished"
        choices = _mapping(path, manifest, "choices")
        seed = manifest.get("seed")
        seconds = manifest.get("seconds")
        if type(seed) is not int:
            raise _damaged(path, "seed is no whole number")
        model, data, category = (one_line(part) for part in path.parts[-4:-1])
        return cls(
            path=path,
            model=model,
            data=data,
            category=category,
            synthesis=one_line(choices.get("synthesis", "")),
            tag=one_line(manifest.get("tag", "")),
            seed=seed,
            status=status,
            differs=_mapping(path, manifest, "differs"),
            metrics=directory.metrics() if status == "done" else {},
            doubts=directory.doubts() if status == "done" else (),
            seconds=float(seconds) if status == "done" and isinstance(seconds, int | float) else None,
            started=one_line(manifest.get("started", "")),
            hardware=one_line(manifest.get("hardware", "")),
            command=one_line(manifest.get("command", ""), 1000),
            commit=one_line(manifest.get("git_commit", "")),
            error=one_line(manifest.get("error", "")) if status == "failed" else "",
        )

    @property
    def reduced(self) -> bool:
        """Whether the recipe is a shortened one, which no paper had."""
        return self.model.endswith("_small")


class Found(NamedTuple):
    """The runs of a folder, and what cannot be read, a line each."""

    runs: list[Run]
    unreadable: list[str]


def found(folder: Path) -> Found:
    """Read every run below a folder. RunError: the folder is not there.

    A damaged run is told, and the others count.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder; give that of your runs, runs=FOLDER")
    runs: list[Run] = []
    unreadable: list[str] = []
    for path in _directories(folder):
        try:
            runs.append(Run.of(path))
        except RunError as error:
            unreadable.append(str(error))
    return Found(runs, unreadable)


def _directories(folder: Path) -> Iterator[Path]:
    """Yield RUNS/MODEL/DATA/CATEGORY/NAME, sorted; a folder with no manifest is no run."""
    for file in sorted(folder.glob("[!.]*/[!.]*/[!.]*/[!.]*/manifest.json")):
        yield file.parent


def _mapping(path: Path, manifest: dict[str, Any], name: str) -> dict[str, Any]:
    value = manifest.get(name, {})
    if not isinstance(value, dict):
        raise _damaged(path, f"{name} is no mapping")
    return value


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path / 'manifest.json'}: is damaged ({why}); remove the folder to run again")
