"""Tables of runs: what stands in a cell, a column, a mean."""

import numpy as np
import pytest

from anomaly_lab.errors import RunError
from anomaly_lab.report.columns import Column, repeated, shared_settings
from anomaly_lab.report.found import found
from anomaly_lab.report.remarks import on_runs
from anomaly_lab.report.tables import OTHER_DATA, OTHER_SETTINGS, PERHAPS, SEVEN, tables
from tests.report.folders import kept


def only(root, metric="image_auroc"):
    (table,) = tables(found(root).runs, [metric])
    return table


def test_a_cell_is_the_mean_over_seeds_with_the_samples_deviation(tmp_path):
    values = [0.9, 0.95, 0.97]
    for seed, value in enumerate(values):
        kept(tmp_path, "padim/mvtec/tile", seed, image_auroc=value)
    table = only(tmp_path)
    cell = table.cells["tile", Column("padim", (), "")]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.sd == pytest.approx(np.std(values, ddof=1))
    assert cell.whole
    assert table.means == {}  # of one category there is none


def test_a_mean_stands_only_over_columns_whose_categories_have_the_same_seeds(tmp_path):
    for seed in (0, 1):
        for category, value in (("tile", 0.5), ("wood", 0.7)):
            kept(tmp_path, f"padim/mvtec/{category}", seed, image_auroc=value + seed / 10)
            kept(tmp_path, f"nearest/mvtec/{category}", seed, image_auroc=value)
    kept(tmp_path, "mlff/mvtec/tile", image_auroc=0.9)
    kept(tmp_path, "vt_adl/mvtec/tile", image_auroc=0.9)
    kept(tmp_path, "vt_adl/mvtec/wood", 1, image_auroc=0.9)
    kept(tmp_path, "nearest/mvtec/wood", 2, status="failed")
    table = only(tmp_path)
    assert [column.model for column in table.means] == ["padim"]
    mean = table.means[Column("padim", (), "")]
    assert mean.by_seed == pytest.approx({0: 0.6, 1: 0.7})
    assert mean.sd == pytest.approx(np.std([0.6, 0.7], ddof=1))


def test_a_column_names_the_keys_in_which_runs_of_a_method_differ(tmp_path):
    key = "model.progressive.iterations"
    recipe = {"model": {"progressive": {"iterations": 2}, "widths": [8, 8]}}
    kept(
        tmp_path,
        "prff/mvtec/tile",
        differs={"data.category": "tile", "model.rate": 1},
        config=recipe,
        image_auroc=0.9,
    )
    for n in (1, 3):
        kept(tmp_path, "prff/mvtec/tile", differs={key: n, "model.rate": 1}, config=recipe, image_auroc=0.8)
    kept(tmp_path, "padim/mvtec/tile", differs={"model.sigma": 4}, image_auroc=0.7)
    table = only(tmp_path)
    assert [(column.model, column.settings) for column in table.columns] == [
        ("padim", ()),
        *(("prff", ((key, n),)) for n in ("1", "2", "3")),
    ]
    recipe = next(column for column in table.columns if column.settings == ((key, "2"),))
    assert recipe.differs == (("model.rate", "1"),)
    assert table.cells["tile", recipe].mean == 0.9


def test_a_setting_that_a_damaged_config_does_not_tell_is_the_recipes(tmp_path):
    plain = kept(tmp_path, "padim/mvtec/tile", image_auroc=0.5)
    (plain / "config.yaml").write_text("{")
    kept(tmp_path, "padim/mvtec/tile", differs={"model.sigma": 4}, image_auroc=0.5)
    assert {column.settings[0][1] for column in only(tmp_path).columns} == {"4", "recipe's"}


def test_an_oracles_tag_stands_even_where_all_runs_have_it(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", tag="oracle-run", image_auroc=0.9)
    kept(tmp_path, "padim/visa/candle", tag="run", image_auroc=0.9)
    made = tables(found(tmp_path).runs, ["image_auroc"])
    assert [(table.data, column.tag) for table in made for column in table.columns] == [
        ("mvtec", "oracle-run"),
        ("visa", ""),
    ]
    said = "settings chosen on test labels, so that no printed number stands beside: padim on mvtec"
    assert said in list(on_runs(found(tmp_path), made))


def test_tags_are_columns_of_their_own(tmp_path):
    for tag, value in (("first", 0.8), ("second", 0.9)):
        kept(tmp_path, "padim/mvtec/tile", tag=tag, image_auroc=value)
    assert {column.tag: cell.mean for (_, column), cell in only(tmp_path).cells.items()} == {
        "first": 0.8,
        "second": 0.9,
    }


def test_what_is_not_done_is_counted_and_has_no_number(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", 0, image_auroc=0.5)
    kept(tmp_path, "padim/mvtec/tile", 1, status="failed", image_auroc=0.1)
    kept(tmp_path, "padim/mvtec/tile", 2, status="running", image_auroc=0.1)
    kept(tmp_path, "padim/mvtec/tile", 3, status="interrupted")
    (cell,) = only(tmp_path).cells.values()
    assert (cell.mean, cell.failed, cell.unfinished, cell.whole) == (0.5, 1, 2, False)


def test_of_a_seed_that_was_run_again_the_last_begun_counts_and_it_is_told(tmp_path):
    """As after an update that changed a recipe, and so the hash of its runs."""
    for started, value in (("2026-02-01", 0.7), ("2026-03-01", 0.9), ("2026-01-01", 0.8)):
        kept(tmp_path, "padim/mvtec/tile", started=started, image_auroc=value)
    (cell,) = only(tmp_path).cells.values()
    assert cell.by_seed == {0: 0.9}
    assert repeated(found(tmp_path).runs) == 2


def test_a_seed_that_failed_before_it_was_done_is_done(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", status="failed", started="1")
    kept(tmp_path, "padim/mvtec/tile", started="2", image_auroc=0.9)
    (cell,) = only(tmp_path).cells.values()
    assert cell.whole


def test_runs_on_different_data_are_no_seeds_of_one(tmp_path):
    """data.root is no key of a run's hash: two folders of photographs may have the same name."""
    for seed, content in ((0, "a"), (1, "b")):
        kept(tmp_path, "padim/folder/parts", seed, manifest={"data_content": content}, image_auroc=0.9)
    kept(tmp_path, "nearest/folder/parts", image_auroc=0.5)
    cells = {column.model: cell for (_, column), cell in only(tmp_path).cells.items()}
    assert (cells["padim"].by_seed, cells["padim"].mixed, cells["nearest"].mixed) == ({}, OTHER_DATA, "")


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"data_fingerprint": "x"}, {"data_fingerprint": "y"}, PERHAPS),
        ({"data_fingerprint": "x"}, {"data_fingerprint": "x"}, ""),
        ({"data_fingerprint": "x"}, {"data_fingerprint": "x", "data_content": "c"}, ""),
        ({"data_fingerprint": "x"}, {"data_fingerprint": "y", "data_content": "c"}, PERHAPS),
        ({"data_fingerprint": "x"}, {"data_content": "c"}, PERHAPS),
        (
            {"data_fingerprint": "x", "data_content": "c"},
            {"data_fingerprint": "y", "data_content": "c"},
            "",
        ),
        ({"synthesis_source": "procedural"}, {"synthesis_source": "DTD"}, OTHER_DATA),
        ({"config_hash": "a"}, {"config_hash": "b"}, OTHER_SETTINGS),
        ({"config_hash": "a"}, {}, OTHER_SETTINGS),
        ({"config_hash": "a"}, {"config_hash": "b", "status": "failed"}, ""),
    ],
)
def test_runs_are_seeds_of_one_where_data_sources_and_settings_are_known_to_be_the_same(
    tmp_path, first, second, why
):
    """What older runs do not keep does not count as the same."""
    for seed, facts in enumerate((first, second)):
        kept(tmp_path, "padim/own/a", seed, manifest=facts, image_auroc=0.5)
    kept(tmp_path, "nearest/own/a", image_auroc=0.5)
    assert {column.model: cell.mixed for (_, column), cell in only(tmp_path).cells.items()} == {
        "padim": why,
        "nearest": "",
    }


def test_a_table_of_cells_without_a_number_stays_and_says_why(tmp_path):
    for category in ("a", "b"):
        for seed in (0, 1):
            content = {"data_content": str(seed)}
            kept(tmp_path, f"padim/own/{category}", seed, manifest=content, image_auroc=0.5)
    all_found = found(tmp_path)
    made = tables(all_found.runs, ["image_auroc", "pixel_ap"])
    assert [table.metric for table in made] == ["image_auroc"]
    said = "no number on own for padim: runs of different data, textures, weights or code on a, b"
    assert list(on_runs(all_found, made)) == [said]


def test_what_all_runs_of_a_method_have_and_its_recipe_has_not_is_known(tmp_path):
    for seed, rate in ((0, 1), (1, 2)):
        differs = {"trainer.max_steps": 2, "model.rate": rate, "data.category": "tile"}
        kept(tmp_path, "prff/mvtec/tile", seed, differs=differs, image_auroc=0.5)
    kept(tmp_path, "padim/mvtec/tile", differs={"model.sigma": 4}, image_auroc=0.5)
    kept(tmp_path, "padim/mvtec/tile", 1, image_auroc=0.5)
    assert shared_settings(found(tmp_path).runs) == [("prff", "trainer.max_steps", "2")]


def test_what_all_runs_of_a_method_have_on_one_data_set_is_told_of_that_data_set(tmp_path):
    kept(tmp_path, "draem/mvtec/tile", differs={"trainer.max_steps": 10, "model.a": 1}, image_auroc=0.5)
    kept(tmp_path, "draem/visa/candle", differs={"model.a": 1}, image_auroc=0.5)
    assert shared_settings(found(tmp_path).runs) == [
        ("draem", "model.a", "1"),
        ("draem on mvtec", "trainer.max_steps", "10"),
    ]


def test_mad_is_the_mean_of_seven_and_of_no_fewer(tmp_path):
    values = dict(zip(SEVEN, np.linspace(0.3, 0.9, 7), strict=True))
    kept(tmp_path, "padim/mvtec/tile", **values)
    kept(tmp_path, "deep_knn/mvtec/tile", **{name: values[name] for name in SEVEN[:3]})
    table = only(tmp_path, "mad")
    assert [cell.mean for cell in table.cells.values() if cell.by_seed] == [pytest.approx(0.6)]


def test_each_data_set_has_its_table_and_a_metric_that_nobody_has_none(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", image_auroc=0.5, pixel_ap=0.4)
    kept(tmp_path, "padim/btad/01", image_auroc=0.6)
    made = tables(found(tmp_path).runs, ["image_auroc", "pixel_ap", "pixel_aupro"])
    assert [(table.data, table.metric) for table in made] == [
        ("btad", "image_auroc"),
        ("mvtec", "image_auroc"),
        ("mvtec", "pixel_ap"),
    ]


def test_a_damaged_run_is_told_and_the_others_count(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", image_auroc=0.5)
    for name, text in (
        ("broken", "{"),
        ("list", "[]"),
        ("seedless", "{}"),
        ("wrong", '{"seed": 0, "differs": 1}'),
    ):
        folder = tmp_path / "padim" / "mvtec" / "wood" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
    (tmp_path / ".sweeps" / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / ".sweeps" / "a" / "b" / "c" / "manifest.json").write_text("{}")
    (tmp_path / "padim" / "mvtec" / "wood" / "nothing").mkdir()
    runs, unreadable, _ = found(tmp_path)
    assert [run.category for run in runs] == ["tile"]
    assert [line.split("manifest.json: ")[1].split(" (")[1].split(")")[0] for line in unreadable[1:]] == [
        "holds no mapping",
        "seed is no whole number",
        "differs is no mapping",
    ]
    assert "broken/manifest.json: is damaged" in unreadable[0]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(RunError, match=rf"^{tmp_path}/none: there is no such folder; give"):
        found(tmp_path / "none")
