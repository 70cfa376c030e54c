"""Which methods differ over categories and which do not: signed ranks in pairs, average ranks together.

After Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006. A category is
one observation: the mean over the seeds of a method, so that more seeds make no more of them.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from anomaly_lab.report.columns import Column, comparable
from anomaly_lab.report.run import is_oracle
from anomaly_lab.report.tables import Table

LEVEL = 0.05
# Nemenyi's critical values at .05 for 2 to 20 methods: of the studentized range with infinite degrees of
# freedom, divided by the root of 2.
CRITICAL = (
    *(1.9600, 2.3437, 2.5690, 2.7278, 2.8497, 2.9483, 3.0309, 3.1017, 3.1637, 3.2187),
    *(3.2680, 3.3127, 3.3536, 3.3912, 3.4260, 3.4584, 3.4887, 3.5171, 3.5438),
)
MOST = len(CRITICAL) + 1  # methods
ALIKE = 10  # digits: differences that are equal but for rounding are ties


class Pair(NamedTuple):
    """Two methods beside each other.

    Attributes:
        wins, losses: in how many categories the first is above and below the second.
        p: of the exact two-sided Wilcoxon test, by Holm for all pairs of the table; None where no outcome on
            so many categories could come to `LEVEL`.
    """

    first: Column
    second: Column
    wins: int
    losses: int
    difference: float  # mean of the first less the second
    p: float | None


class Ranked(NamedTuple):
    """How the methods of a table compare.

    Attributes:
        columns: those that have a number in every one of the categories, best first.
        ranks: their average ranks over the categories; 1 is best, ties share.
        categories: on which they are compared.
        left_out: columns without a number in one of these.
        dropped: categories of the table in which one of the methods has no number.
        needed: so many categories it takes before any pair can come to `LEVEL` after Holm's correction.
        pairs: every two of them; none beyond `MOST` methods.
        critical: average ranks that lie less apart do not differ, by Nemenyi; None beyond `MOST` methods.
        outdated: columns with a number by another definition than today's.
        oracles: columns that are not compared, as their settings were chosen on test labels.
    """

    columns: Sequence[Column]
    ranks: Sequence[float]
    categories: Sequence[str]
    pairs: Sequence[Pair]
    left_out: Sequence[Column]
    dropped: Sequence[str]
    needed: int
    critical: float | None
    outdated: Sequence[Column]
    oracles: Sequence[Column]


def ranked(table: Table) -> Ranked | None:
    """Compare the methods of a table; None unless two fair ones have numbers in the same two categories."""
    whole, names = _compared(table)
    if not whole:
        return None
    values = {column: [table.cells[name, column].mean or 0.0 for name in names] for column in whole}
    ranks = average_ranks(list(values.values()))
    order = sorted(range(len(whole)), key=lambda place: (ranks[place], whole[place]))
    columns = [whole[place] for place in order]
    k = len(columns)
    needed = fewest(k * (k - 1) // 2)
    two = list(combinations(columns, 2)) if k <= MOST else []
    raw = [wilcoxon(values[a], values[b]) for a, b in two]
    corrected: Sequence[float | None] = holm(raw) if len(names) >= needed else [None] * len(two)
    return Ranked(
        columns=columns,
        ranks=[ranks[place] for place in order],
        categories=names,
        pairs=[_pair(a, b, values[a], values[b], p) for (a, b), p in zip(two, corrected, strict=True)],
        left_out=[column for column in fair(table) if column not in whole],
        dropped=[name for name in table.categories if name not in names],
        needed=needed,
        critical=CRITICAL[k - 2] * math.sqrt(k * (k + 1) / (6 * len(names))) if k <= MOST else None,
        outdated=[c for c in columns if any(table.cells[name, c].outdated for name in names)],
        oracles=oracles(table),
    )


def fair(table: Table) -> list[Column]:
    """Return the columns whose numbers are fair beside each other."""
    return comparable(table.columns)


def oracles(table: Table) -> list[Column]:
    """Return the columns whose settings were chosen on test labels."""
    return [column for column in table.columns if is_oracle(column.tag)]


def _compared(table: Table) -> tuple[list[Column], list[str]]:
    """Return the columns and the categories of the largest part of a table in which every cell has a number.

    Largest by its cells, then by its columns; it has two of each, or there is none.
    """
    has = {
        column: frozenset(name for name in table.categories if table.is_whole(name, column))
        for column in fair(table)
    }
    kinds = set(has.values())
    shared = {one & other for one in kinds for other in kinds}
    parts = {names: [column for column in has if names <= has[column]] for names in shared}
    large = {names: mine for names, mine in parts.items() if len(names) > 1 and len(mine) > 1}
    if not large:
        return [], []
    best = max(large, key=lambda names: (len(names) * len(large[names]), len(large[names]), sorted(names)))
    return large[best], sorted(best)


def _pair(a: Column, b: Column, first: Sequence[float], second: Sequence[float], p: float | None) -> Pair:
    differences = [round(x - y, ALIKE) for x, y in zip(first, second, strict=True)]
    wins = sum(d > 0 for d in differences)
    losses = sum(d < 0 for d in differences)
    return Pair(a, b, wins, losses, math.fsum(differences) / len(differences), p)


def fewest(tests: int) -> int:
    """Return the least number of pairs of values on which one of so many tests can come to `LEVEL`.

    The least p of n differences is 2 / 2**n, where all have one sign, and Holm multiplies the smallest p by
    the number of tests.
    """
    return math.ceil(math.log2(2 * tests / LEVEL))


def average_ranks(values: Sequence[Sequence[float]]) -> list[float]:
    """Return the average rank of each row of (methods, categories) values; the highest value has rank 1."""
    sums = [0.0] * len(values)
    for column in zip(*values, strict=True):
        for place, rank in enumerate(shared_ranks([-round(value, ALIKE) for value in column])):
            sums[place] += rank
    return [total / len(values[0]) for total in sums]


def shared_ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from the lowest, 1, up; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the exact two-sided p of Wilcoxon's signed rank test on paired values.

    Pairs without a difference are left out, and equal differences share ranks; the distribution is that of
    all 2**n signs of these very ranks, so that it is exact with ties, too. It is 1 where no pair differs.
    """
    differences = [d for x, y in zip(first, second, strict=True) if (d := round(x - y, ALIKE))]
    ranks = [round(2 * rank) for rank in shared_ranks([abs(d) for d in differences])]  # twice, so whole
    chances = [1.0]  # of each sum of the ranks with a plus
    for rank in ranks:
        wider = chances + [0.0] * rank
        for place, chance in enumerate(chances):
            wider[place + rank] += chance
        chances = [chance / 2 for chance in wider]
    plus = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    return min(1.0, 2 * min(math.fsum(chances[: plus + 1]), math.fsum(chances[plus:])))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's method, in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = highest
    return corrected


def groups(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Return first and last place of each largest run of ranks, best first, that do not differ."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank < critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
