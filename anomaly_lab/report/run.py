"""One run, as its own files tell of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, final

from anomaly_lab.errors import RunError
from anomaly_lab.evaluation.definitions import FIRST
from anomaly_lab.runs.directory import RunDirectory, is_number, labelled_anomalies
from anomaly_lab.runs.reading import one_line

Status = Literal["done", "failed", "unfinished"]
CATEGORY = "data.category"  # names what is measured, not how
SMALL = "_small"  # how the names of reduced recipes end
FULL = "_full"  # how the names of those end that are a paper's where the plain name is a control
ORACLE = "oracle"  # how the tags of runs begin whose settings were chosen on test labels
MADE_FROM = ("synthesis_source", "weights", "own_code")
LONGEST = 1000  # signs of a path in a message


class Origin(NamedTuple):
    """What a run says of how it came about; empty where it says nothing."""

    command: str
    commit: str  # of this project, 12 digits, with a plus if files had been changed
    hardware: str
    torch: str  # its version
    seconds: float  # 0 if unknown

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """Read it out of a manifest; whatever is no text of ours counts as nothing."""
        commit = one_line(manifest.get("git_commit") or "")[:12]
        seconds = manifest.get("seconds")
        versions = manifest.get("versions")
        return cls(
            command=one_line(manifest.get("command") or "", 2000),
            commit=f"{commit}{'+' if commit and manifest.get('git_dirty') else ''}",
            hardware=one_line(manifest.get("hardware") or ""),
            torch=one_line(versions.get("torch", "")) if isinstance(versions, dict) else "",
            seconds=float(seconds) if is_number(seconds) else 0.0,
        )


@final
@dataclass(frozen=True)
class Run:
    """What a report needs of a run.

    Attributes:
        model, data: recipes' names.
        differs: by dotted key, as texts, the values that are not the recipe's, but for the category.
        made_from: what the run was made from besides its config and data: textures, weights, own code.
        config_hash: of all settings but the seed; empty if unknown, as the two that follow.
        data_content: a hash of its data, alike for all seeds; older runs keep none.
        data_fingerprint: the same with which normals are held out, which follows the seed.
        source: where its pseudo anomalies come from, in words.
        metrics: empty unless it is done.
        versions: of the metrics' definitions, by name; what is absent is of the first.
        anomalies: labelled defects that it learned from; above 0 it is a supervised method's.
        started: ISO 8601, empty if unknown.
        error: why it failed, if it did.
        origin: what it was made by.
    """

    path: Path
    model: str
    data: str
    category: str
    tag: str
    seed: int
    status: Status
    differs: dict[str, str]
    made_from: str
    config_hash: str
    data_content: str
    data_fingerprint: str
    source: str
    anomalies: int
    metrics: dict[str, float]
    versions: dict[str, int]
    doubts: Sequence[str]
    started: str
    error: str
    origin: Origin

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a run directory that lies at MODEL/DATA/CATEGORY/NAME. RunError: a file of it is damaged."""
        directory = RunDirectory(path)
        manifest = directory.manifest()
        kind = manifest.get("status")
        status: Status = "done" if kind == "done" else "failed" if kind == "failed" else "unfinished"
        seed = manifest.get("seed")
        differs = manifest.get("differs", {})
        if type(seed) is not int or not isinstance(differs, dict):
            why = "differs is no mapping" if type(seed) is int else "seed is no whole number"
            way_out = "remove the folder to run again"
            raise RunError(f"{plain_path(path / 'manifest.json')}: is damaged ({why}); {way_out}")
        model, data, category = (one_line(part) for part in path.parts[-4:-1])
        return cls(
            path=path,
            model=model,
            data=data,
            category=category,
            tag=one_line(manifest.get("tag", "")),
            seed=seed,
            status=status,
            differs={one_line(key): shown(value) for key, value in differs.items() if key != CATEGORY},
            made_from=json.dumps([manifest.get(name) for name in MADE_FROM]),
            config_hash=one_line(manifest.get("config_hash") or ""),
            data_content=one_line(manifest.get("data_content") or ""),
            data_fingerprint=one_line(manifest.get("data_fingerprint") or ""),
            source=one_line(manifest.get("synthesis_source") or ""),
            anomalies=labelled_anomalies(manifest),
            metrics=directory.metrics() if status == "done" else {},
            versions=_versions(path, manifest),
            doubts=directory.doubts() if status == "done" else (),
            started=one_line(manifest.get("started", "")),
            error=one_line(manifest.get("error", "")) if status == "failed" else "",
            origin=Origin.of(manifest),
        )

    @property
    def where(self) -> str:
        """Its path for a message, on one line."""
        return plain_path(self.path)

    def version(self, metric: str, made_of_it: str = "") -> int:
        """Return which definition of a metric its number is of, or that of another metric made of it."""
        return self.versions.get(made_of_it, self.versions.get(metric, FIRST))


def _versions(path: Path, manifest: dict[str, Any]) -> dict[str, int]:
    found = manifest.get("metric_versions", {})
    if not isinstance(found, dict) or not all(type(version) is int for version in found.values()):
        way_out = "remove the folder to run again"
        raise RunError(
            f"{plain_path(path / 'manifest.json')}: is damaged (metric_versions hold no numbers); {way_out}"
        )
    return found


def is_reduced(model: str) -> bool:
    """Say whether a recipe of this name is a shortened one, which no paper had."""
    return model.endswith(SMALL)


def printed_as(model: str) -> str:
    """Return what the papers' tables call the method of a recipe, reduced or not."""
    return model.removesuffix(SMALL).removesuffix(FULL)


def is_oracle(tag: str) -> bool:
    """Say whether the settings of runs with this tag were chosen on test labels."""
    return tag.startswith(ORACLE)


def plain_path(path: Path) -> str:
    """Return a path for a message: on one line, without what a terminal obeys or no file can hold."""
    return one_line(path, LONGEST)


def shown(value: Any) -> str:
    """Return a value of a config as one types it, on one line."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return one_line(str(value).lower() if isinstance(value, bool) or value is None else value)
