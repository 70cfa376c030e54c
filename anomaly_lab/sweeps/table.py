"""What a sweep shows at its end: a row for each configuration, over its seeds, and means over categories."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anomaly_lab.report.tables import ALL_SEVEN, TableCell, mean_over, value_of

SHOWN = (
    *("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", ALL_SEVEN),
    "poisoned_image_auroc",
)
SEED = "seed"
CATEGORY = "data.category"
SUPERVISED = "supervised"  # the column of how many labelled defects a row's runs learned from
DOUBTS = "look at"  # the column of how many doubts the runs' logs name
MISSING = "-"


class Outcome(NamedTuple):
    """A cell: what was given for each key, and what came of it.

    Attributes:
        metrics: None if it is not done.
        doubts: how many its log names.
        anomalies: labelled defects that it learned from.
    """

    given: Mapping[str, str]
    seed: int
    metrics: Mapping[str, float] | None
    doubts: int = 0
    anomalies: int = 0


class Row(NamedTuple):
    """A configuration on a category, or the mean over them."""

    labels: Sequence[str]
    cells: Mapping[str, TableCell]
    doubts: int
    anomalies: int = 0


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """Return a line a configuration: the values in which they differ, then mean ± sd over its seeds.

    Where there are several seeds, ``n`` counts those that are done. Below stands, for each configuration, the
    mean over the categories, if all are there by the same seeds.
    """
    keys = _varied(outcomes)
    rows = _rows(outcomes, keys)
    rows += _means(rows, keys)
    names = [name for name in SHOWN if any(row.cells[name].by_seed for row in rows)]
    several = len({outcome.seed for outcome in outcomes}) > 1
    doubted = any(row.doubts for row in rows)
    taught = any(row.anomalies for row in rows)
    tail = [*([SUPERVISED] if taught else []), *([DOUBTS] if doubted else [])]
    texts = [[*keys, *(["n"] if several else []), *names, *tail]]
    for row in rows:
        seeds = str(max(len(row.cells[name].by_seed) for name in names)) if names else "0"
        numbers = [_text(row.cells[name]) for name in names]
        words = [str(row.anomalies or "")] if taught else []
        words += [str(row.doubts or "")] if doubted else []
        texts.append([*row.labels, *([seeds] if several else []), *numbers, *words])
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in texts
    )
    return "\n" + "\n".join(lines)


def _varied(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the keys in which the cells differ, without the seed."""
    keys = dict.fromkeys(key for outcome in outcomes for key in outcome.given if key != SEED)
    return [key for key in keys if len({str(outcome.given.get(key)) for outcome in outcomes}) > 1]


def _rows(outcomes: Sequence[Outcome], keys: Sequence[str]) -> list[Row]:
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(outcome.given.get(key, "") for key in keys), []).append(outcome)
    rows = []
    for labels, group in groups.items():
        by_seed = {outcome.seed: outcome for outcome in group}  # seed=0,0 is one
        left = sum(outcome.metrics is None for outcome in by_seed.values())
        values = {
            name: {seed: value_of(one.metrics, name) for seed, one in by_seed.items() if one.metrics}
            for name in SHOWN
        }
        cells = {
            name: TableCell({seed: value for seed, value in found.items() if value is not None}, left)
            for name, found in values.items()
        }
        doubts = sum(outcome.doubts for outcome in by_seed.values())
        rows.append(Row(labels, cells, doubts, max(outcome.anomalies for outcome in by_seed.values())))
    return rows


def _means(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Return the mean over the categories of each configuration that has them all, by the same seeds."""
    if CATEGORY not in keys:
        return []
    place = keys.index(CATEGORY)
    categories = list(dict.fromkeys(row.labels[place] for row in rows))
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*row.labels[:place], *row.labels[place + 1 :]), []).append(row)
    means = []
    for others, group in groups.items():
        found = {name: mean_over([row.cells[name] for row in group], len(categories)) for name in SHOWN}
        if any(found.values()):
            labels = [*others[:place], f"mean of {len(categories)}", *others[place:]]
            cells = {name: cell or TableCell({}) for name, cell in found.items()}
            means.append(Row(labels, cells, 0, max(row.anomalies for row in group)))
    return means


def _text(cell: TableCell) -> str:
    if cell.mean is None:
        return MISSING
    return f"{cell.mean:.4f}" if cell.sd is None else f"{cell.mean:.3f} ± {cell.sd:.3f}"
