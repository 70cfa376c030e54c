"""Put runs into tables: ``python -m anomaly_lab report runs=FOLDER``; nothing is trained.

A table for each data set and metric: rows are categories, columns methods with whatever in them differs from
their recipes, cells means over seeds, ± their standard deviation, and how many seeds; beside them the number
that a paper printed for the same configuration, and how far ours lies above it. A mean over categories stands
only where every category has the same seeds. Tables are printed, and kept as Markdown, csv and LaTeX.

  report.metrics=[image_auroc,pixel_aupro]   which; else those of the papers. mad is the mean of seven
  report.folder=FOLDER                       where the files go; else RUNS/.report

A recipe that ends in _small is a reduced one, and a paper's number beside it says how far it is from there.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig

from anomaly_lab.config.composing import Composition
from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.found import Found, found
from anomaly_lab.report.tables import ALL_SEVEN, SEVEN, Table, repeated, shared_settings, tables
from anomaly_lab.report.texts import OTHERWISE, as_csv, latex, markdown, otherwise, printed_in
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.papers import paper_tables

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")  # that papers print most


class Asked(NamedTuple):
    """What the command line asks for."""

    runs: Path
    metrics: Sequence[str]
    folder: Path


def work(asked: Composition) -> None:
    """Print the tables and write them. RunError: there is no run."""
    want = _asked(asked.cfg)
    all_found = found(want.runs)
    if not all_found.runs:
        raise RunError(f"{want.runs}: holds no run that can be read{_why(all_found)}; give runs=FOLDER")
    papers = Papers(paper_tables())
    made = tables(all_found.runs, want.metrics)
    text = "\n".join([*(markdown(table, papers) for table in made), *_remarks(all_found, made, papers)])
    print(text)
    kept = RunDirectory(want.folder)
    try:
        want.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{want.folder}: cannot be made ({error.strerror}); give report.folder") from error
    kept.write("report.md", text + "\n")
    kept.write("report.csv", as_csv(made, papers))
    kept.write("report.tex", "\n".join(latex(table, papers) for table in made))
    print(f"\nkept as report.md, report.csv and report.tex in {want.folder}")


def _asked(cfg: DictConfig) -> Asked:
    told: Any = cfg.get("report") or {}
    if not isinstance(told, DictConfig | dict) or not isinstance(cfg.runs, str):
        raise ConfigError("report: give report.metrics, report.folder and runs=FOLDER")
    given: dict[Any, Any] = dict(told)
    runs = Path(cfg.runs)
    metrics = given.pop("metrics", METRICS)
    folder = given.pop("folder", None)
    if given:
        raise ConfigError(f"report.{next(iter(given))} is no key; there are report.metrics and report.folder")
    names = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(names, list | tuple | ListConfig) or not names:
        raise ConfigError(f"report.metrics: {metrics}; give a list, as [image_auroc,{ALL_SEVEN}]")
    known = {*SEVEN, ALL_SEVEN, "poisoned_image_auroc"}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"report.metrics: {unknown[0]} is none; there are {', '.join(sorted(known))}")
    return Asked(runs, list(names), Path(folder) if folder else runs / ".report")


def _why(all_found: Found) -> str:
    return f" ({all_found.unreadable[0]})" if all_found.unreadable else ""


def _remarks(all_found: Found, made: Sequence[Table], papers: Papers) -> Iterator[str]:
    """Yield what makes the tables doubtful, a line each: of the printed numbers, then of our runs."""
    used = [printed for table in made for printed in printed_in(table, papers)]
    for table in {printed.table.name: printed.table for printed in used}.values():
        protocol = "".join(f"; {word.name}: {word.meaning}" for word in table.protocol)
        yield f"- printed: {table.paper.cites}, {table.number} ({table.name}){protocol}"
    if any(printed.flag for printed in used):
        yield "- a number with a star is doubtful: experiments/papers says why"
    for line in otherwise(made, papers):
        yield f"- {OTHERWISE} computed otherwise than its recipe says, by {line}"
    small = sorted({run.model for run in all_found.runs if run.reduced})
    if small and used:
        yield f"- reduced recipes, which no paper had: {', '.join(small)}"
    yield from _remarks_on_runs(all_found)


def _remarks_on_runs(all_found: Found) -> Iterator[str]:
    for model, key, value in shared_settings(all_found.runs):
        yield f"- {model}: {key}={value} in all its runs, which its recipe has not"
    if more := repeated(all_found.runs):
        yield f"- {more} times a seed was run again by the same settings: the last begun counts"
    if doubtful := sum(bool(run.doubts) for run in all_found.runs):
        yield f"- {doubtful} of {len(all_found.runs)} runs say in run.log: look at this"
    yield from (f"- failed: {run.path}: {run.error}" for run in all_found.runs if run.error)
    yield from (f"- not read: {line}" for line in all_found.unreadable)
