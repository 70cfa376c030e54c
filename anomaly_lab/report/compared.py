"""The part of the page that says which methods differ: average ranks as a plot, pairs as a table."""

from collections.abc import Iterator, Sequence

from anomaly_lab.report.columns import Column
from anomaly_lab.report.markup import Markup, element
from anomaly_lab.report.names import brief, named
from anomaly_lab.report.ranking import LEVEL, MOST, Pair, Ranked, groups, oracles, ranked
from anomaly_lab.report.summary import boxed, filters, heading
from anomaly_lab.report.tables import Table
from anomaly_lab.report.texts import OUTDATED

# The plot's lengths, in the units of its view box.
WIDTH = 780
LEFT = 245  # for names on either side
TOP = 64
STEP = 22  # from name to name
GAP = 9  # from bar to bar
LONGEST = 26  # signs of a name
BEGINNING = 8  # signs of it where its end is shown, too
SHOWN = 5  # names of what is left out; the tables have all
NONE = "Not compared: no two methods have numbers in the same two categories."


def compared(tables: Sequence[Table]) -> list[Markup]:
    """Return for each table of at least two methods and categories what tells its methods apart."""
    parts: list[Markup] = []
    for table in tables:
        found = ranked(table)
        title = element("h3", f"{table.data}, {table.metric}")
        if found is None and min(len(table.columns), len(table.categories)) > 1:
            lines = [NONE, *_without(oracles(table))]
            notes = [element("p", line, class_="note") for line in lines]
            parts.append(element("div", title, *notes, **filters(table)))
        elif found is not None:
            notes = [element("p", line, class_="note") for line in said(found)]
            critical = found.critical
            told = [] if critical is None else [_boxed_plot(found, critical, table), _pairs(found, table)]
            parts.append(element("div", title, *notes, *told, **filters(table)))
    if not parts:
        return []
    about = (
        "A category is one observation, the mean over a method's seeds. Ranks: 1 is best in a category. "
        "Names under one bar do not differ by Nemenyi's test; pairs are compared by Wilcoxon's signed ranks, "
        "exact and two-sided, with Holm's correction."
    )
    return [element("p", about, class_="note"), element("div", *parts, class_="tables halves")]


def said(found: Ranked) -> Iterator[str]:
    """Yield what a reader must know of a comparison."""
    tests = len(found.pairs)
    count = len(found.categories)
    counted = f"{count} categories, {len(found.columns)} methods"
    if found.critical is None:
        yield f"{counted} are too many: at most {MOST} are compared, so report a folder of fewer."
    else:
        yield f"{counted}: average ranks less than {found.critical:.2f} apart do not differ."
        if count < found.needed:
            pairs = "pair" if tests == 1 else "pairs"
            yield (
                f"No p values: of {tests} {pairs} none can come to {LEVEL:g} with "
                f"fewer than {found.needed} categories."
            )
    if found.left_out:
        why = "as a category is missing, not done or without a comparable number"
        yield f"Left out, {why}: {_few([brief(column) for column in found.left_out])}."
    yield from _without(found.oracles)
    if found.dropped:
        yield f"Without the categories that not all of these have: {_few(found.dropped)}."
    if found.outdated:
        names = _few([brief(column) for column in found.outdated])
        yield f"{OUTDATED} by another definition of the metric than today's: {names}."


def _without(columns: Sequence[Column]) -> Iterator[str]:
    if columns:
        names = _few([brief(column) for column in columns])
        yield f"Left out, as settings were chosen on test labels: {names}."


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _pairs(found: Ranked, table: Table) -> Markup:
    tested = len(found.categories) >= found.needed
    words = ["better", "worse", "mean difference", "better in", "worse in", *(["p (Holm)"] if tested else [])]
    head = element("tr", *(element("th", word, scope="col") for word in words))
    body = [_pair(pair) for pair in found.pairs]
    apart = sum(pair.p is not None and pair.p <= LEVEL for pair in found.pairs)
    summary = f"{len(found.pairs)} pairs" + (f", {apart} with p of at most {LEVEL:g}" if tested else "")
    caption = element("caption", element("b", table.data), f", {table.metric}")
    box = boxed(caption, head, body, [], name=f"pairs, {table.data}, {table.metric}")
    return element("details", element("summary", summary), box)


def _pair(pair: Pair) -> Markup:
    cells = [
        element("td", f"{pair.difference:+.3f}", data_order=round(pair.difference, 9)),
        element("td", str(pair.wins), data_order=pair.wins),
        element("td", str(pair.losses), data_order=pair.losses),
    ]
    if pair.p is not None:
        text = f"{pair.p:.3f}" if pair.p >= 0.001 else f"{pair.p:.1e}"
        apart = element("strong", text) if pair.p <= LEVEL else text
        cells.append(element("td", apart, data_order=round(pair.p, 12)))
    first = element("th", *heading(pair.first), scope="row")
    return element("tr", first, element("td", named(pair.second), class_="text"), *cells)


def _boxed_plot(found: Ranked, critical: float, table: Table) -> Markup:
    name = f"average ranks, {table.data}, {table.metric}"
    return element(
        "div", rank_plot(found, critical), class_="box", tabindex="0", role="region", aria_label=name
    )


def rank_plot(found: Ranked, critical: float) -> Markup:
    """Return Demšar's diagram as SVG: an axis of ranks, best on the left, a bar for each group alike."""
    count = len(found.columns)
    bars = groups(found.ranks, critical)
    half = (count + 1) // 2
    below = TOP + 12 + GAP * len(bars)
    height = below + STEP * half + 6

    def at(rank: float) -> float:
        return round(LEFT + (rank - 1) / (count - 1) * (WIDTH - 2 * LEFT), 1)

    def line(x1: float, y1: float, x2: float, y2: float, **more: str) -> Markup:
        return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **more)

    shapes = [line(at(1), TOP, at(count), TOP)]
    for tick in range(1, count + 1):
        shapes += [line(at(tick), TOP - 5, at(tick), TOP)]
        shapes += [element("text", str(tick), x=at(tick), y=TOP - 10, text_anchor="middle")]
    reach = min(critical, count - 1.0)
    more = "" if critical <= count - 1 else ", wider than the axis"
    shapes += [line(at(1), 22, at(1 + reach), 22), line(at(1), 18, at(1), 26)]
    shapes += [line(at(1 + reach), 18, at(1 + reach), 26)] if not more else []
    shapes += [element("text", f"critical difference {critical:.2f}{more}", x=at(1), y=13)]
    for place, (first, last) in enumerate(bars):
        bar = TOP + 10 + GAP * place
        ends = (at(found.ranks[first]) - 3, at(found.ranks[last]) + 3)
        shapes.append(line(ends[0], bar, ends[1], bar, class_="group"))
    for place, (name, rank) in enumerate(zip(_labels(found.columns), found.ranks, strict=True)):
        left = place < half
        y = below + STEP * (place if left else count - 1 - place) + 12
        edge = LEFT - 14 if left else WIDTH - LEFT + 14
        shapes.append(line(at(rank), TOP, at(rank), y - 4, class_="lead-line"))
        shapes.append(line(at(rank), y - 4, edge, y - 4, class_="lead-line"))
        text = f"{name} {rank:.2f}" if left else f"{rank:.2f} {name}"
        x = edge - 5 if left else edge + 5
        shapes.append(element("text", text, x=x, y=y, text_anchor="end" if left else "start"))
    ranks = zip(found.columns, found.ranks, strict=True)
    title = element("title", "Average ranks: " + ", ".join(f"{named(c)} {rank:.2f}" for c, rank in ranks))
    return element("svg", title, *shapes, viewBox=f"0 0 {WIDTH} {height}", class_="ranks", role="img")


def _labels(columns: Sequence[Column]) -> list[str]:
    """Return names of at most `LONGEST` signs: their beginnings, and the ends where these are alike."""
    names = [brief(column) for column in columns]
    cut = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    return [
        f"{name[:BEGINNING]}…{name[BEGINNING + 1 - LONGEST :]}" if cut.count(short) > 1 else short
        for name, short in zip(names, cut, strict=True)
    ]
