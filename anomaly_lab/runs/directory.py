"""The run directory, the only record of a run: one config, one folder, and no half file after a crash."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeGuard, final
from uuid import uuid4

import numpy as np

from anomaly_lab.errors import RunError
from anomaly_lab.runs.reading import one_line, read_json


@final
class RunDirectory:
    """``RUNS/MODEL/DATA/CATEGORY/TAG-HASH-seedK``: where one run keeps what it knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resume_checkpoint = path / "resume.ckpt"  # all of the training state; exists while training
        self.checkpoint = path / "model.ckpt"  # the trained weights; exists once training has ended

    @classmethod
    def of(cls, place: Path, tag: str, config_hash: str, seed: int) -> Self:
        """Return the directory of a run; ``place`` is RUNS/MODEL/DATA/CATEGORY."""
        return cls(place / f"{tag}-{config_hash[:8]}-seed{seed}")

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file, empty if there is none. RunError: it is damaged."""
        return read_json(self.path / name)

    def manifest(self) -> dict[str, Any]:
        """Return manifest.json, empty if there is none."""
        return self.json("manifest.json")

    def note(self, **facts: Any) -> None:
        """Add facts to manifest.json."""
        self.write_json("manifest.json", self.manifest() | facts)

    def metrics(self) -> dict[str, float]:
        """Return metrics.json, empty if there is none. RunError: a value is no number."""
        file = self.path / "metrics.json"
        found = read_json(file)
        wrong = [f"{name} is no number" for name, value in found.items() if not is_number(value)]
        wrong += [f"{name} is no name" for name in found if not name.isprintable()]
        if wrong:
            raise RunError(f"{file}: is damaged ({one_line(wrong[0])}); remove the folder to run again")
        return found

    def doubts(self) -> list[str]:
        """Return what the manifest says of doubts, a line each. RunError: they are no list."""
        found = self.manifest().get("doubts", [])
        if not isinstance(found, list):
            file = self.path / "manifest.json"
            raise RunError(f"{file}: is damaged (doubts is no list); remove the folder to run again")
        return [one_line(line, 1000) for line in found]

    def write(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        with self.replacing(name) as file:
            file.write_text(text, encoding="utf-8")

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        self.write(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a CSV file whole or not at all; texts as `plain` has them."""
        with self.replacing(name) as path, path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *([plain(value) for value in row] for row in rows)])

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an npz whole or not at all.

        Not compressed: float32 maps shrink by a sixth, which takes a second.
        """
        with self.replacing(name) as path, path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Give a temporary path that becomes ``name`` once its writer has ended and all is on the disk."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # Of this writer alone: another one of the same file, as a second report, must not write into it.
        temporary = file.with_name(f".{file.name}.{uuid4().hex}.part")
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(file)
        except (OSError, RuntimeError) as error:
            cause = (
                error if isinstance(error, OSError) else error.__context__
            )  # torch hides the reason behind its own
            if not isinstance(cause, OSError):
                raise
            raise RunError(
                f"{file}: cannot be written ({cause.strerror}); the last good file is kept"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def wants_a_run(self, made_from: dict[str, Any], *, retry: bool) -> bool:
        """Say whether the state found asks for a run: absent, broken off and failed do, done does not.

        What failed before it began, as its data could not be read, is always tried again, which costs little.

        Raises:
            RunError: the run is done, but was made from something else than ``made_from``; or it failed, and
                is not to be tried again.
        """
        manifest = self.manifest()
        if manifest.get("status") == "failed" and manifest.get("began", True) and not retry:
            raise RunError(
                f"{self.path}: failed before ({one_line(manifest.get('error'))}); skipped, give retry=failed"
            )
        if manifest.get("status") == "done":
            for name, value in made_from.items():
                if manifest.get(name, value) != value:
                    was = f"{one_line(manifest.get(name))} in the finished run, {value} now"
                    way_out = "give data.category=NAME or tag=NAME, or remove the folder"
                    raise RunError(
                        f"{self.path}: {name} changed ({was}), so this would be another run; {way_out}"
                    )
            return False
        return True

    def clear(self) -> None:
        """Remove what a process wrote that was killed before the file was whole."""
        for file in self.path.rglob(".*.part"):
            file.unlink(missing_ok=True)

    def forget_training(self) -> None:
        """Remove what a broken-off run left to go on from."""
        for file in (self.resume_checkpoint, self.checkpoint):
            file.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Return a cell of a table that no spreadsheet takes for a formula.

    A text that begins as one could, or with an apostrophe, gets an apostrophe before it; whoever reads a cell
    back takes the first apostrophe off (``removeprefix("'")``). Numbers stay.
    """
    if not isinstance(value, str):
        return value
    first = value[:1]
    # A spreadsheet may skip blanks and what is not printed, and knows a wide form of the four signs.
    risky = first == " " or not first.isprintable() or first in tuple("=+-@\uff1d\uff0b\uff0d\uff20'")
    return f"'{value}" if risky else value


def labelled_anomalies(manifest: Mapping[str, Any]) -> int:
    """Return how many labelled defects a run learned from: more than none are a supervised method's."""
    counts = manifest.get("counts")
    found = counts.get("anomalies") if isinstance(counts, dict) else None
    return found if type(found) is int else 0


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether a value of a JSON file is a number that can be computed with and shown."""
    return type(value) in {int, float} and abs(value) < 1e300  # an int may be too large for a float
