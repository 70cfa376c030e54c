"""The oldest releases that pyproject.toml allows, as constraints of pip; its arguments are the extras."""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def floors(project: Path, extras: Sequence[str]) -> Iterator[str]:
    """Yield ``NAME==FLOOR`` for each direct dependency of a pyproject.toml, and for those of these extras.

    ValueError: a requirement has no floor, or two unlike ones; KeyError: there is no such extra.
    """
    told = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    wanted = [
        *told["dependencies"],
        *(one for extra in extras for one in told["optional-dependencies"][extra]),
    ]
    known: dict[str, str] = {}
    for requirement in wanted:
        name, bounds = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*).*", requirement).groups()
        found = re.findall(r">=\s*([\w.]+)", bounds)
        if len(found) != 1 or known.setdefault(name, found[0]) != found[0]:
            raise ValueError(f"{requirement}: give one floor, NAME>=VERSION, the same in each list")
    yield from (f"{name}=={version}" for name, version in known.items())


if __name__ == "__main__":
    print(*floors(PYPROJECT, sys.argv[1:]), sep="\n")
