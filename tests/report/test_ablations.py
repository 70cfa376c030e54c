"""Plots of a varied setting: what their lines are means over, and when the paper's curve stands there."""

import re

import pytest

from anomaly_lab.report.ablations import ablations, extent
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.figures import ablation_plots
from anomaly_lab.report.found import found
from anomaly_lab.report.tables import tables
from anomaly_lab.runs.papers import paper_tables
from tests.report.folders import kept

TABLES = paper_tables()
PAPERS = Papers(TABLES)
KEY = "model.progressive.iterations"
ALL = sorted({cell.category for cell in next(t for t in TABLES if t.name == "prff_table3").cells})


def drawn(root):
    """Return the ablations by the key of a folder, and the captions of their plots."""
    made = tables(found(root).runs, ["image_auroc"])
    parts = ablation_plots(made, PAPERS, {})
    captions = re.findall(r"<figcaption><b>.*?</b><span>(.*?)</span>", parts[0]) if parts else []
    pairs = [
        (one, caption)
        for one, caption in zip(ablations(made, PAPERS), captions, strict=True)
        if one.key == KEY
    ]
    return [one for one, _ in pairs], [caption for _, caption in pairs]


def varied(root, categories, seeds=(0,), value=0.9, **more):
    """Write runs with one and with two iterations; two is the recipe's number."""
    for n in (1, 2):
        differs = {**({KEY: n} if n == 1 else {}), **more}
        for category in categories:
            for seed in seeds:
                config = {"model": {"progressive": {"iterations": n}, "gate": more.get("model.gate", "once")}}
                place = f"prff/mvtec/{category}"
                kept(root, place, seed, differs=differs, config=config, image_auroc=value)


def test_all_lines_of_a_plot_are_means_over_the_same_categories(tmp_path):
    varied(tmp_path, ["bottle", "cable"], value=0.7)
    varied(tmp_path, ["bottle"], value=0.9, **{"model.gate": "never"})
    kept(
        tmp_path,
        "prff/mvtec/cable",
        1,
        differs={KEY: 1},
        config={"model": {"progressive": {"iterations": 1}, "gate": "once"}},
        image_auroc=0.1,
    )
    (one,), captions = drawn(tmp_path)
    assert one.categories == ["bottle"]
    assert {line.others: [point[1] for point in line.points] for line in one.lines} == {
        "model.gate=never": [0.9, 0.9],
        "model.gate=once": [0.7, 0.7],
    }
    assert captions == [f"mvtec, mean over bottle and the seeds that they share; bars: ± deviation; {OTHERS}"]


OTHERS = (
    "dashed: Liu, Zhu, Feng, Zeng, Sensors 2023, 23(21), 8750, Table 7, over 15 categories, so its height "
    "does not compare; it is of what model.gate=once is of"
)


def test_lines_that_share_no_category_have_a_plot_each(tmp_path):
    varied(tmp_path, ["bottle"])
    varied(tmp_path, ["cable"], **{"model.gate": "never"})
    found_there, captions = drawn(tmp_path)
    assert [(one.categories, len(one.lines)) for one in found_there] == [(["cable"], 1), (["bottle"], 1)]
    assert [caption.partition(" and the")[0] for caption in captions] == [
        "mvtec, mean over cable",
        "mvtec, mean over bottle",
    ]


@pytest.mark.parametrize(
    ("more", "stands"),
    [
        ({}, True),
        ({"trainer.max_steps": 10}, False),
        ({"trainer.precision": "bf16-mixed", "evaluation.overlays": 0}, True),
    ],
)
def test_the_papers_curve_stands_only_beside_what_it_is_of(tmp_path, more, stands):
    """By the rule of the tables, where the number has no place beside a shortened run either."""
    varied(tmp_path, ALL, **more)
    (one,), (caption,) = drawn(tmp_path)
    assert (one.printed is not None) == stands
    assert ("over the same categories" in caption) == stands
    despite = "† ours computed otherwise than the recipe says, by trainer.precision=bf16-mixed"
    assert (despite in caption) == ("trainer.precision" in more)


def test_a_doubtful_number_of_the_curve_is_named(tmp_path):
    cells = {table.name: table for table in TABLES}
    table = cells["prff_table7"]
    marked = [
        cell._replace(flag="contradicted") if ("2" in dict(cell.settings).values()) else cell
        for cell in table.cells
    ]
    papers = Papers([cells["prff_table3"], table._replace(cells=tuple(marked))])
    varied(tmp_path, ALL)
    made = tables(found(tmp_path).runs, ["image_auroc"])
    assert "; * doubtful at 2<" in ablation_plots(made, papers, {})[0]


def test_a_point_is_the_mean_over_the_seeds_that_all_its_categories_have(tmp_path):
    """The tables refuse a mean where they differ."""
    varied(tmp_path, ["bottle", "cable"], seeds=(0, 1), value=0.5)
    for seed in (2, 3):
        kept(
            tmp_path,
            "prff/mvtec/bottle",
            seed,
            config={"model": {"progressive": {"iterations": 2}, "gate": "once"}},
            image_auroc=1.0,
        )
    (one,), _ = drawn(tmp_path)
    assert one.lines[0].points == [("1", 0.5, 0.0), ("2", 0.5, 0.0)]


def test_categories_without_a_common_seed_give_no_point(tmp_path):
    for n in (1, 2, 3):
        for seed, category in enumerate(("bottle", "cable")):
            seed = seed if n == 3 else 0  # noqa: PLW2901
            kept(tmp_path, f"prff/mvtec/{category}", seed, differs={KEY: n}, image_auroc=0.5)
    (one,), _ = drawn(tmp_path)
    assert [point[0] for point in one.lines[0].points] == ["1", "2"]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([(1.0, 1.0), (1.0, 1.0)], 0.99, 1.01),
        ([(0.0, 0.0), (0.0, 0.0)], -0.01, 0.01),
        ([(0.5, 0.5), (0.5, 0.5)], 0.495, 0.505),
        ([(0.5, 0.5), (0.5 + 1e-12, 0.5)], 0.495, 0.505),
        ([(0.9995, 0.9995), (1.0, 1.0)], 0.99946, 1.00004),
        ([(0.0, 0.0), (1.0, 1.0)], -0.02, 1.02),
        ([(0.7, 1.0), (0.9, 1.0)], 0.6039, 1.02),  # from 0.85 - 0.2121, of 0.4243 in all
        ([(300.0, 300.0), (300.0, 300.0)], 297, 303),
        ([(1.0, 1.0), (3.0, 3.0)], 0.84, 3.16),
        ([(-1.0, -1.0), (0.5, 0.5)], -1.12, 0.62),
    ],
)
def test_the_axis_of_a_metric_between_0_and_1_ends_there_and_a_constant_has_a_small_one(
    tmp_path, values, low, high
):
    for n, seeds in enumerate(values):
        for seed, value in enumerate(seeds):
            kept(tmp_path, "padim/own/a", seed, differs={"model.n": n}, config_hash=str(n), score=value)
    (one,) = ablations(tables(found(tmp_path).runs, ["score"]), PAPERS)
    assert extent(one) == pytest.approx((low, high), abs=1e-4)
    plots = {}
    ablation_plots(tables(found(tmp_path).runs, ["score"]), PAPERS, plots)
    assert plots["ablation-0"]["range"] == list(extent(one))


def test_the_papers_curve_lies_within_the_axis(tmp_path):
    varied(tmp_path, ALL, value=0.5)
    (one,), _ = drawn(tmp_path)
    assert extent(one) == pytest.approx((0.5 - 0.08 * 0.491, 1.02), abs=1e-3)
