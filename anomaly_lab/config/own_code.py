"""Recipes and code of one's own, in a folder outside the package (``--config-dir``)."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from anomaly_lab.errors import ConfigError

PACKAGE = Path(__file__).parent.parent
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent  # in a wheel; in a checkout


def find_own(folder: Path) -> None:
    """Let own code beside own recipes be found, by this process and those that it starts.

    Raises:
        ConfigError: a recipe is named as a shipped one, or a file as a module that is there already.
    """
    for file in folder.glob("*/*.yaml"):
        group = "experiments" if file.parent.name == "experiment" else file.parent.name
        if any((place / group / file.name).exists() for place in (ROOT / "conf", ROOT)):
            raise ConfigError(f"{file}: there is a shipped option of this name; rename the file")
    for file, name in _modules(folder):
        if (other := _elsewhere(name, file)) is not None:
            raise ConfigError(f"{file}: there is a module {name} already ({other}); rename the file")
    on_path(folder)


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    yield from ((file, file.stem) for file in folder.glob("*.py"))
    yield from ((file, file.parent.name) for file in folder.glob("*/__init__.py"))


def _elsewhere(name: str, file: Path) -> str | None:
    """Return where a module of this name is imported from, or would be, if that is another file."""
    try:
        spec = find_spec(name)
    except ValueError:  # of a module that was put together by hand
        return "made while running"
    origin = None if spec is None else spec.origin or "built in"
    return None if origin is None or Path(origin).resolve() == file.resolve() else origin


def on_path(folder: Path) -> None:
    """Put a folder on the import path, of this process and those that it starts."""
    found = str(folder.resolve())
    if found not in sys.path:
        sys.path.insert(0, found)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (found, os.environ.get("PYTHONPATH"))))
