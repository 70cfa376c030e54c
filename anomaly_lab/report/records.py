"""Each run by itself: a line of the table of runs, and its config and manifest as they were written."""

from collections.abc import Iterator, Mapping, Sequence

from anomaly_lab.errors import RunError
from anomaly_lab.report.markup import Markup, element
from anomaly_lab.report.names import REDUCED, SUPERVISED
from anomaly_lab.report.run import LONGEST, Run, is_reduced
from anomaly_lab.report.summary import NOTHING, boxed
from anomaly_lab.report.tables import value_of
from anomaly_lab.report.values import brief_values
from anomaly_lab.runs.reading import one_line, read_text

BYTES = 4 * 2**20  # of all configs and manifests together
FILES = ("config.yaml", "manifest.json")
HEAD = ("run", "category", "tag", "seed", "status", "begun")


def table_of_runs(runs: Sequence[Run], metrics: Sequence[str], name: str) -> Markup:
    """Return a line a run, with its metrics, what it has not from its recipe, and why it failed."""
    columns = [metric for metric in metrics if any(value_of(run.metrics, metric) is not None for run in runs)]
    words = (*HEAD, *columns, "not as in the recipe")
    head = element("tr", *(element("th", word, scope="col") for word in words))
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.differs.items():
            values.setdefault(key, set()).add(value)
    shown = {key: brief_values(several) for key, several in values.items()}
    return boxed(
        element("caption", f"{len(runs)} runs below ", element("b", name)),
        head,
        [_line(run, columns, shown) for run in runs],
        [],
        name="all runs",
        tall=True,
    )


def _line(run: Run, columns: Sequence[str], shown: Mapping[str, Mapping[str, str]]) -> Markup:
    name = element("a", f"{run.model} · {run.data}", href=f"#{anchor(run)}")
    reduced = [REDUCED] if is_reduced(run.model) else []
    words = [*reduced, *([f"{SUPERVISED}, {run.anomalies} defects"] if run.anomalies else [])]
    stamps = [element("span", word, class_="stamp") for word in words]
    differs = ", ".join(f"{key}={shown[key][value]}" for key, value in run.differs.items())
    said = [differs, *([element("span", run.error, class_="undone")] if run.error else [])]
    values = [value_of(run.metrics, metric) for metric in columns]
    return element(
        "tr",
        element("th", name, *stamps, scope="row"),
        element("td", run.category, class_="text"),
        element("td", run.tag, class_="text"),
        element("td", str(run.seed), data_order=run.seed),
        element("td", run.status, class_="text" if run.status == "done" else "text undone"),
        element("td", run.started[:10], class_="text", title=run.started, data_order=run.started),
        *(
            element("td", "–" if v is None else f"{v:.3f}", data_order=NOTHING if v is None else round(v, 9))
            for v in values
        ),
        element("td", *said, class_="wide"),
        data_f_data=run.data,
        data_f_method=run.model,
        data_f_tag=run.tag,
    )


def anchor(run: Run) -> str:
    """Return the name by which the page links to a run; its folder is known by its last four parts."""
    return "run-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in run.path.parts[-4:])


def records(runs: Sequence[Run], said: list[str]) -> Iterator[Markup]:
    """Yield the files of each run, closed, while there is room; what is left out is said."""
    room = BYTES
    without = 0
    for run in runs:
        parts = [element("summary", " / ".join(map(one_line, run.path.parts[-4:])))]
        parts += [element("p", line, class_="doubt") for line in run.doubts]
        for name in FILES:
            try:
                text = read_text(run.path / name)
            except RunError as error:
                parts.append(element("p", one_line(error, LONGEST), class_="undone"))
                continue
            room -= len(text.encode())
            if room < 0:
                without += 1
                continue
            parts += [
                element("h4", name),
                element("pre", text, tabindex="0", aria_label=f"{name} of the run"),
            ]
        yield element(
            "details",
            *parts,
            id=anchor(run),
            data_f_data=run.data,
            data_f_method=run.model,
            data_f_tag=run.tag,
        )
    if without:
        said.append(
            f"{without} configs and manifests more than {BYTES >> 20} MiB are left out: see the folders"
        )
