"""How Sphinx builds the site: ``sphinx-build -W --keep-going -b html docs docs/_build``."""

import importlib
import inspect
import re
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
URLS = dict(url.split(", ") for url in metadata("anomaly_lab").get_all("Project-URL") or [])
HOST = URLS.get("Repository", URLS["Documentation"]).partition("#")[0]
MARK = re.compile(r"^<!-- modules of ([\w.]+) -->$", re.MULTILINE)

project = "anomaly_lab"
author = "The anomaly_lab developers"
release = metadata("anomaly_lab")["Version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # a class and an attribute may share a name

html_theme = "furo"
html_title = f"{project} {release}"

myst_heading_anchors = 3  # links to headings, as code hosts have them

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
python_maximum_signature_line_length = 100


def modules(page: str) -> str:
    """Return a page of the reference whose mark became a section for each module of the package.

    That of ``anomaly_lab`` stands for the modules at its top alone. A new file needs no entry.
    """
    return MARK.sub(lambda found: "\n".join(section(module) for module in named(found[1])), page)


def named(package: str) -> list[str]:
    """Return the modules of a package by name, those without a word of their own left out."""
    folder = ROOT.joinpath(*package.split("."))
    files = folder.glob("*.py") if package == project else folder.rglob("*.py")
    told = (file for file in files if file.name != "__main__.py" and file.read_text(encoding="utf-8").strip())
    parts = (file.relative_to(ROOT).with_suffix("").parts for file in told)
    return sorted(".".join(part for part in path if part != "__init__") for path in parts)


def section(module: str) -> str:
    """Return the section of a module."""
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def outward(page: str, folder: Path) -> str:
    """Return a page whose links to files of the repository outside docs/ lead to its host."""

    def linked(found: re.Match[str]) -> str:
        file = (folder / found[2]).resolve()
        inside = file.is_relative_to(DOCS) or not file.exists()
        return found[0] if inside else f"[{found[1]}]({HOST}/blob/main/{file.relative_to(ROOT)}"

    return re.sub(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)", linked, page)


def plain(line: str) -> str:
    """Return a line of a docstring whose stars, bars and final underscores are no markup; code stays code."""
    parts = re.split(r"(``.+?``|`[^`]+`_*)", line)
    parts[::2] = [re.sub(r"[*|]|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def commented(name: str) -> list[str]:
    """Return what the comment beside a field of a named tuple says; Python itself says "Alias" of it."""
    owner, _, field = name.rpartition(".")
    module, _, kind = owner.rpartition(".")
    source = inspect.getsource(getattr(importlib.import_module(module), kind))
    found = re.search(rf"^    {field}: [^#\n]*# (.*)$", source, re.MULTILINE)
    return [found[1], ""] if found else [""]


def setup(app: Sphinx) -> None:
    """Prepare pages and docstrings as they are read."""

    def read(_: Sphinx, name: str, source: list[str]) -> None:
        source[0] = outward(modules(source[0]), (DOCS / name).parent)

    def docstring(_: Sphinx, _what: str, name: str, *arguments: Any) -> None:
        lines = arguments[-1]
        if lines and lines[0].startswith("Alias for field number"):
            lines[:] = commented(name)
        lines[:] = map(plain, lines)

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", docstring, priority=100)  # napoleon adds markup later
