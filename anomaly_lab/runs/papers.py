"""The numbers that papers print, beside which those of runs may stand: experiments/papers/, read and checked.

A csv holds a printed table, means.csv the printed means, and tables.yaml what is said of them.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from anomaly_lab.errors import DataError
from anomaly_lab.runs.reading import one_line

PACKAGE = Path(__file__).parent.parent
INSTALLED = PACKAGE / "experiments"  # in a wheel
FOLDER = (INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / "experiments") / "papers"

FIRST = ["data", "category", "method"]
LAST = ["metric", "value", "flag"]
OF_MEANS = ["table", "over", "method", *LAST]
WORDS = ("protocols", "flags", "metrics", "methods", "data")  # sections of a sentence a word
VALUE = re.compile(r"0\.[0-9]{1,6}|1\.0{1,6}")

Content = dict[str, dict[str, Any]]


class Paper(NamedTuple):
    """Where tables were printed."""

    name: str
    cites: str  # authors, place, year
    at: str  # DOI, arXiv number, or the publisher's page


class Word(NamedTuple):
    """A word of tables.yaml."""

    name: str
    meaning: str


class PrintedCell(NamedTuple):
    """A number of a table."""

    data: str  # as in data=NAME; empty if the source names none
    category: str  # as in data.category; empty: one number for all of the data set
    method: str  # as in model=NAME where there is a recipe
    settings: tuple[tuple[str, str], ...]  # what the table varies, and to what; empty if that is lost
    metric: str  # as in metrics.json
    value: float | None  # in [0, 1]; None: the paper has none, or it cannot be read
    digits: int  # behind the point, as printed
    flag: str  # a word of tables.yaml where something is wrong, else empty


class PrintedMean(NamedTuple):
    """A mean that a table prints besides its cells."""

    over: str  # all, or a group of tables.yaml
    categories: tuple[str, ...]  # the same, one by one
    method: str
    metric: str
    value: float | None
    digits: int
    flag: str


class PaperTable(NamedTuple):
    """A printed table."""

    name: str  # of its csv
    paper: Paper
    number: str  # such as "Table 3", or where else it stands
    protocol: tuple[Word, ...]  # in what it differs from a run here
    notes: tuple[str, ...]
    cells: tuple[PrintedCell, ...]  # row by row
    means: tuple[PrintedMean, ...]
    flags: tuple[Word, ...]  # those that its cells and means have


def paper_tables(folder: Path = FOLDER) -> list[PaperTable]:
    """Return all tables, in the order of tables.yaml; it takes neither torch nor Hydra.

    Raises:
        DataError: a file, row or cell does not fit; it names the file with the line or key.
    """
    file = folder / "tables.yaml"
    said = _said(file)
    here = {path.stem for path in folder.glob("*.csv")} - {"means"}
    if astray := sorted(here ^ said["tables"].keys()):
        raise DataError(f"{file}: tables and the csv files beside it differ in {astray[0]}; add or remove it")
    cells = {name: tuple(_cells(folder / f"{name}.csv", said)) for name in said["tables"]}
    means: dict[str, list[PrintedMean]] = {name: [] for name in cells}
    for name, mean in _means(folder / "means.csv", said, cells):
        means[name].append(mean)
    return [_table(name, cells[name], tuple(means[name]), said) for name in cells]


def _table(
    name: str, cells: tuple[PrintedCell, ...], means: tuple[PrintedMean, ...], said: Content
) -> PaperTable:
    about = said["tables"][name]
    flags = dict.fromkeys(
        [cell.flag for cell in cells if cell.flag] + [mean.flag for mean in means if mean.flag]
    )
    return PaperTable(
        name=name,
        paper=Paper(about["paper"], **said["papers"][about["paper"]]),
        number=about["number"],
        protocol=tuple(Word(word, said["protocols"][word]) for word in about["protocol"]),
        notes=tuple(about["notes"]),
        cells=cells,
        means=means,
        flags=tuple(Word(flag, said["flags"][flag]) for flag in flags),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); restore it") from error


def _said(file: Path) -> Content:
    """Return what tables.yaml says, each table with a protocol and notes, if empty ones."""
    try:
        said = yaml.safe_load(_text(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: is no YAML ({one_line(error)}); mend it") from error
    _keys(f"{file}", said, {"papers", *WORDS, "groups", "tables"})
    for section, content in said.items():
        _keys(f"{file}: {section}", content, None)
    for section in WORDS:
        _strings(f"{file}: {section}", list(said[section].values()))
    for name, categories in said["groups"].items():
        _strings(f"{file}: groups.{name}", categories)
    for name, about in said["papers"].items():
        _keys(f"{file}: papers.{name}", about, {"cites", "at"})
        _strings(f"{file}: papers.{name}", list(about.values()))
    tables = {name: _about(f"{file}: tables.{name}", about, said) for name, about in said["tables"].items()}
    return {**said, "tables": tables}


def _about(where: str, table: Any, said: Content) -> dict[str, Any]:
    about = {"protocol": [], "notes": [], **table} if isinstance(table, dict) else table
    _keys(where, about, {"paper", "number", "protocol", "notes"})
    for key, value in about.items():
        _strings(f"{where}.{key}", value if key in ("protocol", "notes") else [value])
    for section, words in (("papers", [about["paper"]]), ("protocols", about["protocol"])):
        if unknown := [word for word in words if word not in said[section]]:
            raise DataError(f"{where}: {unknown[0]} is not among the {section}; correct it, or add it there")
    return about


def _keys(where: str, content: object, wanted: set[str] | None) -> None:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DataError(f"{where}: must hold names, each with what is said of it")
    if wanted is not None and content.keys() != wanted:
        raise DataError(f"{where}: must have the keys {', '.join(sorted(wanted))}, and no others")


def _strings(where: str, content: object) -> None:
    if not isinstance(content, list) or not all(isinstance(one, str) and one for one in content):
        raise DataError(f"{where}: must be text, or a list of texts; quote what YAML takes otherwise")


def _rows(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Return each row with the place that an error names, the header first."""
    reader = csv.reader(_text(file).splitlines(), strict=True)
    width = None
    try:
        for row in reader:
            where = f"{file}: line {reader.line_num}"
            width = width or len(row)
            if len(row) != width:
                raise DataError(f"{where}: has {len(row)} fields and the header {width}; make them equal")
            yield where, row
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: is no csv ({one_line(error)}); mend it") from error


def _cells(file: Path, said: Content) -> Iterator[PrintedCell]:
    rows = _rows(file)
    where, header = next(rows, (f"{file}: line 1", []))
    varied = header[len(FIRST) : -len(LAST)]
    if header != [*FIRST, *varied, *LAST] or not all(varied) or len(set(header)) < len(header):
        raise DataError(f"{where}: the header must be {','.join(FIRST)}, the keys varied, {','.join(LAST)}")
    seen = set()
    for where, row in rows:
        data, category, method = row[: len(FIRST)]
        settings = tuple(zip(varied, row[len(FIRST) : -len(LAST)], strict=True))
        cell = PrintedCell(data, category, method, settings, *_number(where, row, said))
        if (place := cell._replace(value=None, digits=0, flag="")) in seen:
            raise DataError(f"{where}: the same cell stands above; remove one of them")
        seen.add(place)
        yield cell


def _means(
    file: Path, said: Content, cells: dict[str, tuple[PrintedCell, ...]]
) -> Iterator[tuple[str, PrintedMean]]:
    """Return each mean with the name of its table."""
    rows = _rows(file)
    where, header = next(rows, (f"{file}: line 1", []))
    if header != OF_MEANS:
        raise DataError(f"{where}: the header must be {','.join(OF_MEANS)}")
    seen = set()
    for where, row in rows:
        table, over, method = row[: len(FIRST)]
        number = _number(where, row, said)
        of = [c.category for c in cells.get(table, ()) if (c.method, c.metric) == (method, number[0])]
        categories = tuple(dict.fromkeys(of)) if over == "all" else tuple(said["groups"].get(over, ()))
        if not categories or not set(categories) <= set(of):
            raise DataError(f"{where}: {table} has no cells of {method}, {number[0]}, for {over}")
        if (place := (table, over, method, number[0])) in seen:
            raise DataError(f"{where}: the same mean stands above; remove one of them")
        seen.add(place)
        yield table, PrintedMean(over, categories, method, *number)


def _number(where: str, row: list[str], said: Content) -> tuple[str, float | None, int, str]:
    """Return metric, value, digits and flag, the last three fields of a row."""
    metric, value, flag = row[-len(LAST) :]
    if not row[2]:
        raise DataError(f"{where}: method is empty; name it")
    for section, word in (("metrics", metric), ("flags", flag)):
        if word not in said[section] and (section, word) != ("flags", ""):
            raise DataError(f"{where}: {word or 'nothing'} is not among the {section} of tables.yaml")
    if value and not VALUE.fullmatch(value):
        raise DataError(f"{where}: value: {one_line(value)} is no decimal number in [0, 1]; correct it")
    return metric, float(value) if value else None, len(value.partition(".")[2]), flag
