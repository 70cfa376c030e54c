"""The tables as parts of the page: one line a method for a first look, then a table a metric."""

from collections.abc import Sequence

from anomaly_lab.report.beside import Papers, Printed
from anomaly_lab.report.columns import RECIPES, Column, comparable
from anomaly_lab.report.markup import Markup, element, joined
from anomaly_lab.report.names import REDUCED, SUPERVISED, stamps
from anomaly_lab.report.tables import Table, TableCell
from anomaly_lab.report.texts import (
    MEAN,
    MISSING,
    OTHERWISE,
    OUTDATED,
    beside,
    otherwise,
    ours,
    outdated_in,
    rows,
    theirs,
)
from anomaly_lab.report.values import brief_keys

PARTLY = "A mean stands only where every category has the same seeds, all done."
TITLES = {
    REDUCED: "a shortened recipe, which no paper had",
    SUPERVISED: "learned from labelled defects, which left its test set",
}
NOTHING = -1  # by which a cell without a number is sorted, below all metrics


def filters(table: Table, column: Column | None = None) -> dict[str, str]:
    """Return the attributes by which the page's filters know what an element is of."""
    found = {"data_f_data": table.data, "data_f_metric": table.metric}
    return found if column is None else {"data_f_method": column.model, "data_f_tag": column.tag}


def overview(tables: Sequence[Table]) -> list[Markup]:
    """Return a table for each data set: a row a column of its tables, the means over its categories."""
    parts: list[Markup] = []
    for data in dict.fromkeys(table.data for table in tables):
        mine = [table for table in tables if table.data == data]
        several = len(mine[0].categories) > 1
        over = f"mean over {len(mine[0].categories)} categories" if several else mine[0].categories[0]
        head = element(
            "tr",
            *(element("th", text, scope="col") for text in ("method", *(table.metric for table in mine))),
        )
        columns = sorted({column for table in mine for column in table.columns})
        bold = [_bold([_over_all(table, column) for column in columns], columns) for table in mine]
        body = [
            element(
                "tr",
                element("th", *heading(column), scope="row"),
                *(
                    _number(_over_all(table, column), None, best=best[place])
                    for table, best in zip(mine, bold, strict=True)
                ),
                data_f_data=data,
                data_f_method=column.model,
                data_f_tag=column.tag,
            )
            for place, column in enumerate(columns)
        ]
        caption = element("caption", element("b", data), f", {over}")
        box = boxed(caption, head, body, [], name=f"overview of {data}")
        partly = several and any(column not in table.means for table in mine for column in columns)
        notes = [element("p", PARTLY, class_="note")] if partly else []
        parts.append(element("div", box, *notes, data_f_data=data))
    return parts


def tabled(table: Table, papers: Papers) -> Markup:
    """Return a table with its remarks: a row a category, a column a configuration, the mean as its foot."""
    columns = [
        element("th", *heading(column), scope="col", **filters(table, column)) for column in table.columns
    ]
    head = element("tr", element("th", "category", scope="col"), *columns)
    lines: list[tuple[str, Markup]] = []
    for name, over, cells in rows(table):
        bold = _bold(cells, table.columns)
        values = [
            _number(
                cell,
                beside(table, over, place, cell, papers),
                best=bold[place],
                **filters(table, table.columns[place]),
            )
            for place, cell in enumerate(cells)
        ]
        lines.append((name, element("tr", element("th", name.strip("()"), scope="row"), *values)))
    body = [line for name, line in lines if name != MEAN]
    foot = [line for name, line in lines if name == MEAN]
    caption = element("caption", element("b", table.data), f", {table.metric}")
    said = [
        f"{OTHERWISE} computed otherwise than its recipe says, by {one}" for one in otherwise([table], papers)
    ]
    said += [f"{OUTDATED} {one}" for one in outdated_in([table])]
    notes = [element("p", line, class_="note") for line in said]
    box = boxed(caption, head, body, foot, name=f"{table.data}, {table.metric}")
    return element("div", box, *notes, **filters(table))


def flowing(boxes: Sequence[Markup]) -> list[Markup]:
    """Return tables side by side where there is room for them, none of none."""
    return [element("div", *boxes, class_="tables")] if boxes else []


def heading(column: Column) -> list[Markup]:
    """Return a column's name, a stamp on a reduced recipe, and each setting that is known."""
    parts = [element("span", column.model, class_="model")]
    parts += [element("span", stamp, class_="stamp", title=TITLES[stamp]) for stamp in stamps(column)]
    names = brief_keys(key for key, _ in column.settings)
    for (key, value), (_, text) in zip(column.settings, column.shown, strict=True):
        if value != RECIPES:
            parts.append(element("span", f"{names[key]}={text}", class_="setting", title=f"{key}={value}"))
    return [*parts, *([element("span", f"tag={column.tag}", class_="setting")] if column.tag else [])]


def boxed(
    caption: Markup,
    head: Markup,
    body: Sequence[Markup],
    foot: Sequence[Markup],
    *,
    name: str,
    tall: bool = False,
) -> Markup:
    """Return a sortable table in a box of its own, which scrolls where it is too wide, or ``tall``."""
    parts = [caption, element("thead", head), element("tbody", *body)]
    if foot:
        parts.append(element("tfoot", *foot))
    table = element("table", *parts, class_="sortable")
    kind = "box tall" if tall else "box"
    return element("div", table, class_=kind, tabindex="0", role="region", aria_label=name)


def _over_all(table: Table, column: Column) -> TableCell | None:
    if len(table.categories) > 1:
        return table.means.get(column)
    return table.cells.get((table.categories[0], column))


def _bold(cells: Sequence[TableCell | None], columns: Sequence[Column]) -> list[bool]:
    """Say of each cell whether its mean is the highest of what is all done and comparable.

    None is of fewer than two, which are no comparison.
    """
    fair = comparable(columns)
    means = [
        cell.mean if cell is not None and cell.whole and column in fair else None
        for cell, column in zip(cells, columns, strict=True)
    ]
    known = [mean for mean in means if mean is not None]
    return [mean is not None and len(known) > 1 and mean == max(known) for mean in means]


def _number(cell: TableCell | None, printed: Printed | None, *, best: bool, **attributes: str) -> Markup:
    mean = None if cell is None else cell.mean
    order = NOTHING if mean is None else round(mean, 9)
    text = ours(cell)
    parts: list[str] = [text if text != MISSING else "–"]
    if cell is not None and (cell.failed or cell.unfinished or cell.mixed):
        parts = [element("span", text, class_="undone")]
    elif best:
        parts = [element("strong", text)]
    if printed is not None:
        cited = f"{printed.table.paper.cites}, {printed.table.number}"
        parts.append(element("span", f"paper {theirs(cell, printed)}", class_="printed", title=cited))
    return element("td", joined(parts), data_order=order, **attributes)
