"""Put runs into tables: ``python -m anomaly_lab report runs=FOLDER``; nothing is trained.

A table for each data set and metric: rows are categories, columns methods with whatever in them differs from
their recipes, cells means over seeds, ± their standard deviation, and how many seeds; beside them the number
that a paper printed for the same configuration, and how far ours lies above it. A mean over categories stands
only where every category has the same seeds. Tables are printed, and kept as Markdown, csv and LaTeX, and in
report.html, one file with plots and pictures of the runs that asks for nothing from anywhere.

  report.metrics=[image_auroc,pixel_aupro]   which; else those of the papers. mad is the mean of seven
  report.folder=FOLDER                       where the files go; else RUNS/.report
  report.rescore=true, --rescore             computes metrics of an older definition anew, from kept scores

A recipe that ends in _small is a reduced one, and a paper's number beside it says how far it is from there.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig

from anomaly_lab.config.composing import Composition
from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.found import Found, found
from anomaly_lab.report.page import Content, page
from anomaly_lab.report.remarks import on_failures, on_origin, on_papers, on_runs, without
from anomaly_lab.report.tables import ALL_SEVEN, SEVEN, tables
from anomaly_lab.report.texts import as_csv, latex, markdown
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.papers import PaperTable, paper_tables
from anomaly_lab.runs.reading import one_line

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")  # that papers print most


class Asked(NamedTuple):
    """What the command line asks for."""

    runs: Path
    metrics: Sequence[str]
    folder: Path
    rescore: bool
    allow: Sequence[str]


def work(asked: Composition) -> None:
    """Print the tables and write them. RunError: there is no run."""
    want = _asked(asked.cfg)
    all_found = found(want.runs)
    printed = paper_tables()
    _check_metrics(want.metrics, all_found, printed)
    if not all_found.runs:
        raise RunError(f"{want.runs}: holds no run that can be read{_why(all_found)}; give runs=FOLDER")
    said = _computed_anew(want, all_found) if want.rescore else []
    try:
        # Before anything is printed, so that whoever reads only the beginning has the files.
        text = _keep(want, found(want.runs) if want.rescore else all_found, Papers(printed))
    except RunError:
        with suppress(BrokenPipeError):  # the error is told all the same
            print("\n".join(said), end="\n" if said else "")
        raise
    print("\n".join([*said, text]))
    print(f"\nkept as report.md, report.csv, report.tex and report.html in {want.folder}")


def _keep(want: Asked, all_found: Found, papers: Papers) -> str:
    """Write the files; return what is printed. RunError: the folder cannot be made."""
    made = tables(all_found.runs, want.metrics)
    lines = [*on_papers(all_found, made, papers), *on_runs(all_found, made), *on_failures(all_found)]
    lines += without(want.metrics, made)
    origin = ["", "### Where the numbers are from", "", *(f"- {line}" for line in on_origin(all_found))]
    text = "\n".join([*(markdown(t, papers) for t in made), *(f"- {line}" for line in lines), *origin])
    kept = RunDirectory(want.folder)
    try:
        want.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{want.folder}: cannot be made ({error.strerror}); give report.folder") from error
    kept.write("report.md", text + "\n")
    kept.write("report.csv", as_csv(made, papers))
    kept.write("report.tex", "\n".join(latex(table, papers) for table in made))
    name = one_line(want.runs.resolve().name)
    kept.write("report.html", page(Content(name, all_found, made, papers, want.metrics)))
    return text


def _computed_anew(want: Asked, all_found: Found) -> list[str]:
    """Compute old metrics anew; return a line for each run of which, or why not."""
    from anomaly_lab.report.rescoring import rescored  # noqa: PLC0415 - brings torch, which tables do without

    lines = list(rescored(all_found.runs, want.allow))
    return lines or ["all metrics are of today's definitions: nothing is to be computed anew"]


def _asked(cfg: DictConfig) -> Asked:
    told: Any = cfg.get("report") or {}
    if not isinstance(told, DictConfig | dict) or not isinstance(cfg.runs, str):
        raise ConfigError("report: give report.metrics, report.folder, report.rescore and runs=FOLDER")
    given: dict[Any, Any] = dict(told)
    runs = Path(cfg.runs)
    metrics = given.pop("metrics", METRICS)
    folder = given.pop("folder", None)
    rescore = given.pop("rescore", False)
    if given:
        keys = "report.metrics, report.folder and report.rescore"
        raise ConfigError(f"report.{next(iter(given))} is no key; there are {keys}")
    if not isinstance(rescore, bool):
        raise ConfigError(f"report.rescore: {rescore}; give true or false")
    names = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(names, list | tuple | ListConfig) or not names:
        raise ConfigError(f"report.metrics: {metrics}; give a list, as [image_auroc,{ALL_SEVEN}]")
    where = Path(folder) if folder else runs / ".report"
    return Asked(runs, list(names), where, rescore, list(cfg.get("allow") or ()))


def _check_metrics(names: Sequence[str], all_found: Found, printed: Sequence[PaperTable]) -> None:
    """Raise ConfigError for a metric that is none of ours, of a paper's, or of a run's."""
    ours = {*SEVEN, ALL_SEVEN, "poisoned_image_auroc"}
    theirs = {cell.metric for table in printed for cell in table.cells}
    runs = {name for run in all_found.runs for name in run.metrics}
    if unknown := [name for name in names if name not in ours | theirs | runs]:
        there = ", ".join(sorted(ours | theirs))
        raise ConfigError(f"report.metrics: {one_line(unknown[0])} is none; there are {there}")


def _why(all_found: Found) -> str:
    return f" ({all_found.unreadable[0]})" if all_found.unreadable else ""
