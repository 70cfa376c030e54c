"""A table as text: Markdown for people, csv for programs, LaTeX for papers; ours beside the paper's."""

import csv
import io
from collections.abc import Iterator, Sequence

from anomaly_lab.evaluation.definitions import current
from anomaly_lab.report.beside import Papers, Printed
from anomaly_lab.report.columns import Column
from anomaly_lab.report.names import headings, stamps, title, told
from anomaly_lab.report.tables import POISONED, Table, TableCell, made_of
from anomaly_lab.runs.directory import plain

HEADER = (
    *("data", "category", "model", "settings", "tag", "metric", "mean", "sd", "n", "unfinished", "failed"),
    *("state", "definition", "stamp", "doubts"),
    *("printed", "difference", "table", "flag", "despite"),
)
MEAN = "(mean)"  # the row's name, which no category has
MISSING = "-"
DOUBTFUL = "*"  # beside a printed number that something is wrong with
OUTDATED = "‡"  # behind a number of ours by another definition of the metric than today's
OTHERWISE = "†"  # beside one whose runs were computed otherwise than the recipe says
LATEX = {sign: rf"\{sign}" for sign in "&%$#_{}"}
LATEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
}


def ours(cell: TableCell | None) -> str:
    """Return mean, spread and number of seeds: ``0.981 ± 0.004 (3)``, with what is not done."""
    if cell is None:
        return MISSING
    if cell.mixed:
        return cell.mixed
    numbers = "" if cell.mean is None else f"{cell.mean:.3f}"
    spread = "" if cell.sd is None else f" ± {cell.sd:.3f}"
    states = [
        f"{count} {name}"
        for count, name in ((cell.failed, "failed"), (cell.unfinished, "unfinished"))
        if count
    ]
    seeds = f" ({len(cell.by_seed)})" if cell.by_seed else ""
    mark = OUTDATED if cell.outdated else ""
    return " ".join([numbers + spread + seeds + mark, *states]).strip() or MISSING


def state(cell: TableCell) -> str:
    """Return in words whether a cell is all that was wanted of it, and if not, why."""
    if cell.mixed or cell.whole:
        return cell.mixed or "done"
    if cell.unfinished or cell.failed:
        return "partly done" if cell.by_seed else "not done"
    return "without this metric"


def theirs(cell: TableCell | None, printed: Printed | None) -> str:
    """Return the paper's number and how far ours lies above it, or nothing."""
    if printed is None:
        return ""
    marks = (DOUBTFUL if printed.flag else "") + (OTHERWISE if printed.despite else "")
    number = f"{printed.value:.{printed.digits}f}{marks}"
    return number if cell is None or cell.mean is None else f"{number} ({cell.mean - printed.value:+.3f})"


def rows(table: Table) -> Iterator[tuple[str, Sequence[str], Sequence[TableCell | None]]]:
    """Yield each row: its name, the categories that it is over, its cells; last the mean, if there is one."""
    for category in table.categories:
        yield category, [category], [table.cells.get((category, column)) for column in table.columns]
    if table.means:
        yield MEAN, table.categories, [table.means.get(column) for column in table.columns]


def beside(
    table: Table, over: Sequence[str], place: int, cell: TableCell | None, papers: Papers
) -> Printed | None:
    """Return the printed number for a cell in the column at ``place``, if ours has one to stand beside."""
    if cell is None or cell.mean is None:
        return None
    return papers.beside(table.data, over, table.columns[place], table.metric)


def otherwise(tables: Sequence[Table], papers: Papers) -> list[str]:
    """Return what the mark † stands for, a line a method: ``draem: trainer.precision=bf16-mixed``."""
    found = {
        (table.columns[place].model, f"{key}={value}")
        for table in tables
        for _, over, cells in rows(table)
        for place, cell in enumerate(cells)
        if (printed := beside(table, over, place, cell, papers)) is not None
        for key, value in printed.despite
    }
    models = sorted({model for model, _ in found})
    return [f"{model}: {', '.join(sorted(s for m, s in found if m == model))}" for model in models]


def outdated_in(tables: Sequence[Table]) -> list[str]:
    """Return what the mark ‡ stands for, a line a definition that such numbers are of."""
    found: dict[tuple[str, str], set[int]] = {}
    for table in tables:
        for cell in table.cells.values():
            for name, version in cell.versions:
                if version != current(name):
                    found.setdefault((table.metric, name), set()).add(version)
    return [
        f"{metric}: {'' if name == metric else f'made of {name} '}by definition "
        f"{', '.join(map(str, sorted(old)))}, which is now {current(name)}; {_way_out(metric)}"
        for (metric, name), old in sorted(found.items())
    ]


def _way_out(metric: str) -> str:
    if metric.startswith(POISONED):
        return "only a new run computes it anew"
    return "report.rescore=true computes it anew where scores were kept"


def printed_in(table: Table, papers: Papers) -> list[Printed]:
    """Return the printed numbers that stand in the table."""
    asked = [
        beside(table, over, place, cell, papers)
        for _, over, cells in rows(table)
        for place, cell in enumerate(cells)
    ]
    return [printed for printed in asked if printed is not None]


def grid(table: Table, papers: Papers) -> list[list[str]]:
    """Return the table's texts, the header first; the printed numbers' column follows ours."""
    columns: list[list[str]] = [["category", *(name for name, *_ in rows(table))]]
    for place, heading in enumerate(headings(table)):
        cells = [
            (cells[place], beside(table, over, place, cells[place], papers)) for _, over, cells in rows(table)
        ]
        columns.append([heading, *(ours(cell) for cell, _ in cells)])
        if any(printed for _, printed in cells):
            columns.append(["printed", *(theirs(cell, printed) for cell, printed in cells)])
    return [list(row) for row in zip(*columns, strict=True)]


def markdown(table: Table, papers: Papers) -> str:
    """Return the table with its name as a heading."""
    texts = [[text.replace("|", r"\|") for text in row] for row in grid(table, papers)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in texts
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"### {title(table)}", "", lines[0], rule, *lines[1:], ""])


def latex(table: Table, papers: Papers) -> str:
    """Return a tabular to be put in by ``input``, with the rules of booktabs."""
    texts = [[_escaped(text) for text in row] for row in grid(table, papers)]
    body = [" & ".join(row) + r" \\" for row in texts]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(texts[0]) - 1)}}}"
    lines = [f"† {line}" for line in otherwise([table], papers)]
    lines += [f"‡ {line}" for line in outdated_in([table])]
    # The headings leave this out, and the caption is that of whoever puts the table in.
    lines = [*([more] if (more := told(table)) else []), *lines]
    notes = [rf"\multicolumn{{{len(texts[0])}}}{{l}}{{\footnotesize {_escaped(line)}}} \\" for line in lines]
    rules = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", *notes]
    return "\n".join([f"% {title(table)}", begin, *rules, r"\end{tabular}", ""])


def as_csv(tables: Sequence[Table], papers: Papers) -> str:
    """Return a line for each cell of all tables, with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for table in tables:
        for name, over, cells in rows(table):
            for place, cell in enumerate(cells):
                if cell is not None:
                    printed = beside(table, over, place, cell, papers)
                    writer.writerow(map(plain, _line(table, name, table.columns[place], cell, printed)))
    return text.getvalue()


def _line(table: Table, name: str, column: Column, cell: TableCell, printed: Printed | None) -> list[object]:
    settings = " ".join(f"{key}={value}" for key, value in column.settings)
    place = [table.data, name, column.model, settings, column.tag, table.metric]
    alone = made_of(table.metric) == (table.metric,)
    definition = " ".join(str(v) if alone else f"{one}={v}" for one, v in sorted(cell.versions))
    numbers = [cell.mean, cell.sd, len(cell.by_seed), cell.unfinished, cell.failed, state(cell), definition]
    numbers += [" ".join(stamps(column)), cell.doubts]
    if printed is None:
        return [*place, *numbers, *[None] * 5]
    difference = None if cell.mean is None else cell.mean - printed.value
    despite = " ".join(f"{key}={value}" for key, value in printed.despite)
    return [*place, *numbers, printed.value, difference, printed.table.name, printed.flag, despite]


def _escaped(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
