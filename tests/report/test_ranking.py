"""Comparisons of methods over categories: against scipy, and against loops written out."""

import itertools
import math
import re

import numpy as np
import pytest
from scipy import stats

from anomaly_lab.evaluation.definitions import VERSIONS
from anomaly_lab.report.compared import compared, said
from anomaly_lab.report.found import found
from anomaly_lab.report.ranking import CRITICAL, LEVEL, average_ranks, fewest, groups, holm, ranked, wilcoxon
from anomaly_lab.report.tables import tables
from tests.report.folders import kept


@pytest.mark.parametrize("n", [1, 2, 5, 6, 12, 40])
def test_signed_ranks_are_scipys_exact_ones_where_nothing_ties(n):
    rng = np.random.default_rng(n)
    first, second = rng.random((2, n))
    wanted = stats.wilcoxon(first, second, method="exact").pvalue
    assert wilcoxon(first.tolist(), second.tolist()) == pytest.approx(wanted, rel=1e-9)


def test_signed_ranks_with_ties_and_zeros_are_those_of_all_signs():
    first = [0.9, 0.8, 0.7, 0.95, 0.6, 0.5, 0.85, 0.9]
    second = [0.8, 0.7, 0.7, 0.85, 0.4, 0.55, 0.8, 0.6]  # 0.9 - 0.8 and 0.95 - 0.85 differ by rounding alone
    differences = np.round(np.subtract(first, second), 6)
    differences = differences[differences != 0]
    ranks = stats.rankdata(np.abs(differences))
    plus = ranks[differences > 0].sum()
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=7)])
    wanted = 2 * min((sums <= plus).mean(), (sums >= plus).mean())
    assert wilcoxon(first, second) == pytest.approx(wanted)
    assert wilcoxon(first, first) == 1


def test_holm_is_the_definition_written_out():
    values = [0.01, 0.04, 0.03, 0.005, 0.04]
    wanted = []
    for value in values:
        smaller = sorted(values)
        steps = [min(1.0, (len(values) - i) * p) for i, p in enumerate(smaller) if p <= value]
        wanted.append(max(steps))
    assert holm(values) == pytest.approx(wanted)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_average_ranks_are_scipys_with_the_highest_first():
    values = np.random.default_rng(0).integers(0, 4, (5, 9)) / 4
    wanted = stats.rankdata(-values, axis=0).mean(axis=1)
    assert average_ranks(values.tolist()) == pytest.approx(wanted)


def test_critical_values_are_those_of_the_studentized_range_and_of_the_paper():
    wanted = [stats.studentized_range.ppf(0.95, k, np.inf) / math.sqrt(2) for k in range(2, 21)]
    assert pytest.approx(wanted, abs=6e-5) == CRITICAL
    # Demšar 2006, table 5a, two to ten classifiers
    printed = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    assert pytest.approx(printed, abs=1e-3) == CRITICAL[:9]


@pytest.mark.parametrize(("tests", "n"), [(1, 6), (3, 7), (10, 9), (45, 11)])
def test_on_fewer_categories_no_pair_could_differ(tests, n):
    assert fewest(tests) == n
    assert tests * stats.wilcoxon(np.arange(1.0, n + 1), method="exact").pvalue <= LEVEL
    assert tests * stats.wilcoxon(np.arange(1.0, n), method="exact").pvalue > LEVEL


def test_a_group_is_a_largest_run_of_ranks_that_lie_close():
    assert groups([1.0, 1.5, 2.2, 3.4, 3.5], 1.25) == [(0, 2), (2, 3), (3, 4)]
    assert groups([1.0, 1.5, 2.2], 2) == [(0, 2)]
    assert groups([1.0, 3.0], 1) == []


def filled(root, methods, categories, seeds=(0,)):
    rng = np.random.default_rng(3)
    for place, method in enumerate(methods):
        for category in range(categories):
            for seed in seeds:
                value = 0.9 - 0.05 * place + float(rng.uniform(-0.01, 0.01))
                kept(root, f"{method}/own/c{category:02}", seed, image_auroc=value)
    return tables(found(root).runs, ["image_auroc"])


def test_a_table_is_ranked_over_categories_and_not_over_seeds(tmp_path):
    (table,) = filled(tmp_path, ["padim", "nearest", "mlff"], 8, seeds=(0, 1))
    kept(tmp_path, "vt_adl/own/c00", image_auroc=0.99)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    made = ranked(table)
    assert [column.model for column in made.columns] == ["padim", "nearest", "mlff"]
    assert made.ranks == [1, 2, 3]
    assert (len(made.categories), made.needed) == (8, 7)
    assert made.critical == pytest.approx(2.343701 * math.sqrt(3 * 4 / (6 * 8)), abs=1e-4)
    assert [(pair.wins, pair.losses) for pair in made.pairs] == [(8, 0)] * 3
    assert [pair.p for pair in made.pairs] == pytest.approx([3 * 2 / 2**8] * 3)
    assert [column.model for column in made.left_out] == ["vt_adl"]
    assert any("comparable number: vt_adl." in line for line in said(made))


def test_where_there_are_too_few_categories_no_p_is_told_but_how_many_it_takes(tmp_path):
    (table,) = filled(tmp_path, ["padim", "nearest", "mlff"], 6)
    made = ranked(table)
    assert [pair.p for pair in made.pairs] == [None] * 3
    assert "No p values: of 3 pairs none can come to 0.05 with fewer than 7 categories." in list(said(made))
    text = "".join(compared([table]))
    assert "p (Holm)" not in text
    assert "3 pairs<" in text


def test_one_more_category_of_one_method_ends_no_comparison_and_is_named(tmp_path):
    filled(tmp_path, ["padim", "nearest", "mlff"], 8)
    kept(tmp_path, "padim/own/extra", image_auroc=0.9)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    made = ranked(table)
    assert [column.model for column in made.columns] == ["padim", "nearest", "mlff"]
    assert (len(made.categories), list(made.dropped), list(made.left_out)) == (8, ["extra"], [])
    assert "Without the categories that not all of these have: extra." in list(said(made))


def test_what_shares_no_two_categories_is_told_not_to_be_compared(tmp_path):
    for place in ("padim/own/a", "padim/own/b", "nearest/own/b", "nearest/own/c"):
        kept(tmp_path, place, image_auroc=0.5)
    (part,) = compared(tables(found(tmp_path).runs, ["image_auroc"]))[1:]
    assert "Not compared: no two methods have numbers in the same two categories." in part


def test_a_method_of_other_data_is_left_out_for_what_it_is_and_old_definitions_are_named(
    tmp_path, monkeypatch
):
    filled(tmp_path, ["padim", "nearest"], 3)
    for category in range(3):
        for seed in (0, 1):
            content = {"data_content": str(seed)}
            kept(tmp_path, f"mlff/own/c{category:02}", seed, manifest=content, image_auroc=0.5)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    reason = "as a category is missing, not done or without a comparable number"
    assert f"Left out, {reason}: mlff." in list(said(ranked(table)))
    assert list(ranked(table).outdated) == []
    monkeypatch.setitem(VERSIONS, "image_auroc", 2)
    line = "‡ by another definition of the metric than today's: padim, nearest."
    assert line in list(said(ranked(table)))


def test_an_oracle_is_not_compared_and_is_left_out_by_its_name(tmp_path):
    """Its settings were chosen on the very labels that the ranks are from."""
    filled(tmp_path, ["padim", "nearest"], 6)
    for category in range(6):
        kept(tmp_path, f"mlff/own/c{category:02}", tag="oracle-run", image_auroc=0.99)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    made = ranked(table)
    assert [column.model for column in made.columns] == ["padim", "nearest"]
    assert (made.ranks, len(made.pairs), list(made.left_out)) == ([1, 2], 1, [])
    line = "Left out, as settings were chosen on test labels: mlff oracle-run."
    assert line in list(said(made))
    text = "".join(compared([table]))
    assert line in text
    assert "mlff" not in re.search(r"<svg.*</svg>", text)[0]


def test_one_method_beside_an_oracle_is_not_compared_and_the_oracle_is_named(tmp_path):
    filled(tmp_path, ["padim"], 6)
    for category in range(6):
        kept(tmp_path, f"mlff/own/c{category:02}", tag="oracle-run", image_auroc=0.99)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    assert ranked(table) is None
    assert "Left out, as settings were chosen on test labels: mlff oracle-run." in "".join(compared([table]))


def test_one_method_or_one_category_is_not_compared(tmp_path):
    assert compared(filled(tmp_path / "a", ["padim"], 8)) == []
    assert compared(filled(tmp_path / "b", ["padim", "mlff"], 1)) == []


def test_the_plot_has_every_method_at_its_rank_and_a_bar_over_those_alike(tmp_path):
    (table,) = filled(tmp_path, ["padim", "nearest", "mlff", "draem<b>"], 8)
    part = "".join(compared([table]))
    assert "draem<b>" not in part
    svg = re.search(r"<svg.*</svg>", part)[0]
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert texts[:4] == ["1", "2", "3", "4"]
    assert texts[4] == "critical difference 1.66"
    assert texts[5:] == ["padim 1.00", "nearest 2.00", "3.00 mlff", "4.00 draem&lt;b&gt;"]
    assert len(re.findall(r'class="group"', svg)) == 3


def test_of_many_methods_not_every_two_are_compared(tmp_path):
    (table,) = filled(tmp_path, [f"m{number:02}" for number in range(21)], 2)
    made = ranked(table)
    assert (len(made.columns), list(made.pairs), made.critical) == (21, [], None)
    text = "".join(compared([table]))
    assert "2 categories, 21 methods are too many: at most 20 are compared" in text
    assert "<svg" not in text
