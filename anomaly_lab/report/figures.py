"""The parts of the page that show plots and pictures: of varied settings, and of single runs."""

from collections.abc import Iterator, Sequence
from typing import Any

from anomaly_lab.report.ablations import Ablation, ablations, extent
from anomaly_lab.report.beside import Papers, PrintedCurve
from anomaly_lab.report.chosen import chosen
from anomaly_lab.report.columns import Column
from anomaly_lab.report.curves import curve_plots
from anomaly_lab.report.embeddings import embedding_plots
from anomaly_lab.report.markup import Markup, element
from anomaly_lab.report.names import named
from anomaly_lab.report.overlays import SAID, Album, Shown, best_and_worst, side_by_side
from anomaly_lab.report.run import Run
from anomaly_lab.report.tables import Table
from anomaly_lab.report.texts import DOUBTFUL, OTHERWISE

FEW = 4  # names of categories that a caption lists
ABOUT_CURVES = (
    "The first seed of each method. The area under the line is the metric; of region overlap, the area left "
    "of the dotted line, at evaluation.fpr_limit, divided by that limit. Grey dashes are what scores that "
    "know nothing give. Colours and dashes are those of the table."
)


def ablation_plots(tables: Sequence[Table], papers: Papers, plots: dict[str, Any]) -> list[Markup]:
    """Return a figure for each key that was varied; what it draws goes to ``plots``."""
    parts: list[Markup] = []
    for number, one in enumerate(ablations(tables, papers)):
        name = f"ablation-{number}"
        plots[name] = {
            "kind": "ablation",
            "x": one.key,
            "y": one.table.metric,
            "range": list(extent(one)),
            "lines": [
                {"name": line.others or one.model, "points": [list(point) for point in line.points]}
                for line in one.lines
            ],
            "paper": _paper(one),
        }
        over = one.categories
        names = ", ".join(over) if len(over) <= FEW else f"{len(over)} categories"
        lines = [f"{one.table.data}, mean over {names} and the seeds that they share; bars: ± deviation"]
        lines += [] if one.printed is None else _about_paper(one, one.printed)
        title = f"{one.model}: {one.table.metric} by {one.key.rpartition('.')[2]}"
        parts.append(
            _figure(name, title, "; ".join(lines), one.table.data, one.model, metric=one.table.metric)
        )
    return [element("div", *parts, class_="grid")] if parts else []


def _about_paper(one: Ablation, printed: PrintedCurve) -> Iterator[str]:
    """Yield what the caption says of the paper's curve: whose it is, beside what, and what is doubtful."""
    table = next(iter(printed.points.values())).table
    count = len(printed.categories)
    same = printed.categories == set(one.categories)
    over = "the same categories" if same else f"{count} categories, so its height does not compare"
    only = [line.others or one.model for line in one.like] if len(one.like) < len(one.lines) else []
    yield f"dashed: {table.paper.cites}, {table.number}, over {over}"
    if only:
        yield f"it is of what {' and '.join(only)} is of"
    if doubtful := [value for value, point in printed.points.items() if point.flag]:
        yield f"{DOUBTFUL} doubtful at {', '.join(doubtful)}"
    if printed.despite:
        said = ", ".join(f"{key}={value}" for key, value in printed.despite)
        yield f"{OTHERWISE} ours computed otherwise than the recipe says, by {said}"


def _paper(one: Ablation) -> list[list[Any]]:
    points = {} if one.printed is None else one.printed.points
    return [[value, printed.value] for value, printed in points.items()]


def _figure(
    name: str, title: str, caption: str, of_data: str, method: str | None = None, *, metric: str | None = None
) -> Markup:
    plot = element("div", class_="plot", data_plot=name, role="img", aria_label=f"plot: {title}; {caption}")
    words = element("figcaption", element("b", title), element("span", caption))
    return element("figure", words, plot, data_f_data=of_data, data_f_method=method, data_f_metric=metric)


def of_runs(
    runs: Sequence[Run], plots: dict[str, Any], said: list[str]
) -> Iterator[tuple[str, str, list[Markup]]]:
    """Yield the sections of single runs, each name, title and parts; an empty one has no parts.

    What scripts draw goes to ``plots``, and what was left out is added to ``said``.
    """
    shown = chosen(runs)
    places, lines = curve_plots(shown)
    said += lines
    plots["curves"] = places
    yield "curves", "ROC, precision and recall, region overlap", _curves() if places else []
    best = Album()
    pictures = list(best_and_worst(shown, best))
    beside = Album()
    rows = list(side_by_side(shown, beside))
    yield "pictures", "Best and worst", _best(pictures)
    yield "side-by-side", "Methods side by side", _beside(rows)
    for album, what in ((best, "best and worst"), (beside, "side by side")):
        said += album.said
        if album.without:
            said.append(f"{album.without} pictures of {what} are left out; see maps/ in the runs' folders")
    embedded, lines = embedding_plots(shown)
    said += lines
    figures = []
    for number, one in enumerate(embedded):
        plots[f"tsne-{number}"] = {"kind": "tsne", "kinds": one["kinds"]}
        title = f"{one['name']}: {one['data']}, {one['category']}"
        said_of = "near is alike, the axes mean nothing"
        figures.append(_figure(f"tsne-{number}", title, said_of, one["data"], one["method"]))
    yield "tsne", "Test images by t-SNE", [element("div", *figures, class_="grid")] if figures else []


def _curves() -> list[Markup]:
    choose = element(
        "form",
        element("label", element("span", "category"), element("select", id="place")),
        element("label", element("span", "of"), element("select", id="level")),
        class_="choose",
    )
    panels = ("roc", "pr", "pro")
    drawn = [
        element("div", class_="plot", id=f"curves-{name}", role="img", aria_label="plot") for name in panels
    ]
    return [
        element("p", ABOUT_CURVES, class_="note"),
        choose,
        element("div", class_="box", id="legend", tabindex="0", role="region", aria_label="areas"),
        element("div", *drawn, class_="grid", id="curve-plots"),
    ]


def _best(pictures: Sequence[Shown]) -> list[Markup]:
    by_column: dict[tuple[str, Column], list[Shown]] = {}
    for picture in pictures:
        by_column.setdefault((picture.data, picture.column), []).append(picture)
    return [
        element(
            "div",
            element("h3", f"{of_data}: {named(column)}"),
            *(_picture(one, f"{_said(one)}; {one.category}: {one.overlay.image}") for one in mine),
            data_f_data=of_data,
            data_f_method=column.model,
            data_f_tag=column.tag,
        )
        for (of_data, column), mine in by_column.items()
    ]


def _said(one: Shown) -> str:
    return f"{one.found}: {SAID[one.overlay.kind]}" if one.found else SAID[one.overlay.kind]


def _beside(rows: Sequence[tuple[str, str, str, Sequence[Shown]]]) -> list[Markup]:
    return [
        element(
            "div",
            element("h3", f"{of_data}, {category}: {image}"),
            element("div", *_pictures(pictures), class_="tables"),
            data_f_data=of_data,
        )
        for of_data, category, image, pictures in rows
    ]


def _pictures(pictures: Sequence[Shown]) -> list[Markup]:
    return [_picture(one, named(one.column), data_f_method=one.column.model) for one in pictures]


def _picture(one: Shown, caption: str, **attributes: str) -> Markup:
    where = f"{one.data}, {one.category}, {one.overlay.image}"
    alt = f"{named(one.column)} on {where}: image, anomaly map and ground truth"
    width, height = one.size
    image = element("img", src=one.source, alt=alt, width=width, height=height, decoding="async")
    box = element("div", image, class_="box strip", tabindex="0", role="region", aria_label=alt)
    return element("figure", element("figcaption", caption), box, **attributes)
