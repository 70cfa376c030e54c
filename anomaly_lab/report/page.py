"""The report as one html file: tables, plots and pictures, with all that they need inside it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from plotly.offline import get_plotlyjs

from anomaly_lab.report import remarks
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.compared import compared
from anomaly_lab.report.figures import ablation_plots, of_runs
from anomaly_lab.report.found import Found
from anomaly_lab.report.markup import Markup, data, element, joined
from anomaly_lab.report.records import records, table_of_runs
from anomaly_lab.report.run import ORACLE, is_oracle
from anomaly_lab.report.summary import flowing, overview, tabled
from anomaly_lab.report.tables import Table, made_of

BEST = "f1_max"  # in the names of metrics that take the best threshold that the test labels allow
ASSETS = Path(__file__).with_name("assets")


class Content(NamedTuple):
    """What a page is made of."""

    name: str  # of the runs' folder
    found: Found
    tables: Sequence[Table]
    papers: Papers
    metrics: Sequence[str]


def page(content: Content) -> str:
    """Return the html file; it asks for nothing from anywhere. What it leaves out, it says."""
    said: list[str] = []
    plots: dict[str, Any] = {}
    sections = [
        ("overview", "Overview", flowing(overview(content.tables))),
        ("tables", "Tables", _tables(content)),
        ("compared", "Methods compared", compared(content.tables)),
        ("ablations", "What a setting does", ablation_plots(content.tables, content.papers, plots)),
        *of_runs(content.found.runs, plots, said),
        ("doubts", "How far to believe it", _doubts(content)),
        ("runs", "Runs", _runs(content, said)),
    ]
    if said:
        sections.insert(-1, ("left-out", "What is left out of this page", [_list(said)]))
    kept = [(name, title, parts) for name, title, parts in sections if parts]
    links = [element("a", title, href=f"#{name}") for name, title, _ in kept]
    body = [
        element("a", "Skip to the tables", href="#overview", class_="skip"),
        element("header", *_head(content), element("nav", *links, aria_label="sections")),
        _filters(content),
        element("main", *(_section(*section) for section in kept)),
        data("plots", plots),
        element("script", _datatables("js"), type="text/plain", id="datatables"),
        element("script", Markup(get_plotlyjs())),
        element("script", Markup((ASSETS / "page.js").read_text(encoding="utf-8"))),
    ]
    title = element("title", f"Report of {content.name}")
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        title,
        element("style", _datatables("css")),
        element("style", Markup((ASSETS / "page.css").read_text(encoding="utf-8"))),
    ]
    return "<!doctype html>\n" + element("html", element("head", *head), element("body", *body), lang="en")


def _datatables(kind: str) -> Markup:
    """Return a file of DataTables, which itables brings: the styles, or the script in base64.

    To import itables takes longer than all else.
    """
    spec = find_spec("itables")
    assert spec is not None
    assert spec.origin is not None
    content = (Path(spec.origin).parent / "html" / f"dt_bundle.{kind}").read_bytes()
    return Markup((content if kind == "css" else base64.b64encode(content)).decode())


def _section(name: str, title: str, parts: Sequence[Markup]) -> Markup:
    return element(
        "section", element("h2", title, id=f"h-{name}"), *parts, id=name, aria_labelledby=f"h-{name}"
    )


def _list(lines: Sequence[str]) -> Markup:
    return element("ul", *(element("li", line) for line in lines))


def _head(content: Content) -> Iterator[Markup]:
    runs = content.found.runs
    counts = {state: sum(run.status == state for run in runs) for state in ("done", "failed", "unfinished")}
    counts["unreadable"] = len(content.found.unreadable)
    shown = [f"{count} {state}" for state, count in counts.items() if count]
    latest = max((run.started for run in runs), default="")
    yield element("h1", "Report ", element("span", content.name, class_="where"))
    yield element(
        "p",
        f"{len(runs) + counts['unreadable']} runs: {', '.join(shown)}. ",
        f"The last was begun on {latest[:10]}. " if latest else "",
        f"Made by anomaly_lab; scores are raw{_chosen_on_tests(content)}.",
        class_="lead",
    )


def _chosen_on_tests(content: Content) -> str:
    """Return for what test images or their labels were used besides being measured on, if for anything."""
    oracles = sum(is_oracle(run.tag) for run in content.found.runs)
    names = [table.metric for table in content.tables if BEST in " ".join(made_of(table.metric))]
    used = [f"the settings of {oracles} runs, tagged {ORACLE}"] if oracles else []
    used += [f"the threshold in {' and '.join(dict.fromkeys(names))}"] if names else []
    if not used:
        return ", and nothing was chosen on test images"
    return f", and nothing was chosen on test images but {' and '.join(used)}"


def _filters(content: Content) -> Markup:
    """Return the bar by which the page shows one data set, metric, method or tag alone."""
    runs = content.found.runs
    choices = {
        "data": sorted({run.data for run in runs}),
        "metric": list(dict.fromkeys(table.metric for table in content.tables)),
        "method": sorted({run.model for run in runs}),
        "tag": sorted({run.tag for run in runs}),
    }
    fields = [
        element(
            "label",
            element("span", {"data": "data set"}.get(name, name)),
            element(
                "select",
                element("option", "all", value=""),
                *(element("option", value, value=value) for value in values),
                data_filter=name,
            ),
        )
        for name, values in choices.items()
        if len(values) > 1
    ]
    return element("form", *fields, class_="filters", aria_label="show only") if fields else Markup("")


def _tables(content: Content) -> list[Markup]:
    lines = [element("p", line, class_="note") for line in remarks.without(content.metrics, content.tables)]
    return [*flowing([tabled(table, content.papers) for table in content.tables]), *lines]


def _doubts(content: Content) -> list[Markup]:
    found = content.found
    parts: list[Markup] = []
    groups: Mapping[str, Sequence[str]] = {
        "Beside the papers": list(remarks.on_papers(found, content.tables, content.papers)),
        "Of the runs": list(remarks.on_runs(found, content.tables)),
        "Look at this": list(remarks.doubts(found)),
        "Failed, or not to be read": list(remarks.on_failures(found)),
    }
    for title, lines in groups.items():
        if lines:
            parts += [element("h3", title), _list(lines)]
    return parts


def _runs(content: Content, said: list[str]) -> list[Markup]:
    runs = content.found.runs
    kept = joined(list(records(runs, said)))
    table = table_of_runs(runs, content.metrics, content.name)
    title = element("summary", "Config and manifest of each run")
    origin = _list(list(remarks.on_origin(content.found)))
    return [table, origin, element("details", title, kept, class_="records")]
