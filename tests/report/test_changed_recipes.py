"""Runs made before and after a recipe was changed: they are told apart, by every recipe of this project."""

import pytest

from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import composed
from anomaly_lab.report.found import found
from anomaly_lab.report.recipes import counts
from anomaly_lab.report.tables import tables
from tests.report.folders import kept

OLD, NEW = {"model": {"a": 1, "b": 5}}, {"model": {"a": 2, "b": 5}}


def columns(root):
    """Return the numbers by what a column is named by."""
    (table,) = tables(found(root).runs, ["image_auroc"])
    cells = table.cells.items()
    return {column.settings: dict(cell.by_seed) for (_, column), cell in cells}


def test_runs_before_and_after_a_change_of_their_recipe_are_no_seeds_of_one(tmp_path):
    """The recipe had another value then; what differs from it is nothing in both."""
    before, after = {"config_hash": "a" * 64, "started": "2026-01-01"}, {"config_hash": "b" * 64}
    kept(tmp_path, "padim/own/a", 0, config={**OLD, "seed": 0}, **before, image_auroc=0.9)
    kept(tmp_path, "padim/own/a", 1, config={**OLD, "seed": 1}, **before, image_auroc=0.7)
    kept(tmp_path, "padim/own/a", 1, config=NEW, **after, started="2026-02-01", image_auroc=0.5)
    assert columns(tmp_path) == {
        (("model.a", "1"),): {0: 0.9, 1: 0.7},
        (("model.a", "2"),): {1: 0.5},
    }
    (line,) = found(tmp_path).changed
    assert line == "padim on own: its recipe was changed between these runs, in model.a (now 2)"
    assert [run.differs for run in found(tmp_path).runs] == [{"model.a": "1"}, {"model.a": "1"}, {}]


def test_a_change_between_two_categories_is_found_where_no_two_hashes_could_tell(tmp_path):
    """The category is part of a run's hash."""
    kept(tmp_path, "padim/own/a", config={**OLD, "data": {"category": "a"}}, started="1", image_auroc=0.9)
    kept(tmp_path, "padim/own/b", config={**NEW, "data": {"category": "b"}}, started="2", image_auroc=0.5)
    assert columns(tmp_path) == {(("model.a", "1"),): {0: 0.9}, (("model.a", "2"),): {0: 0.5}}
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    assert table.means == {}


def test_who_was_given_what_the_recipe_has_now_is_of_the_recipe(tmp_path):
    kept(tmp_path, "padim/own/a", 0, differs={"model.a": 2}, config=NEW, started="1", image_auroc=0.9)
    kept(tmp_path, "padim/own/a", 1, config=OLD, started="2", image_auroc=0.5)
    kept(tmp_path, "padim/own/a", 2, config=NEW, started="3", image_auroc=0.7)
    assert columns(tmp_path) == {(("model.a", "2"),): {0: 0.9, 2: 0.7}, (("model.a", "1"),): {1: 0.5}}


def test_a_key_that_a_recipe_did_not_have_is_a_change_and_one_of_another_choice_is_none(tmp_path):
    more = {"model": {"a": 1, "b": 5, "c": True}}
    kept(tmp_path, "padim/own/a", 0, config=OLD, started="1", image_auroc=0.9)
    kept(tmp_path, "padim/own/a", 1, config=more, started="2", image_auroc=0.5)
    assert columns(tmp_path).keys() == {(("model.c", "absent"),), (("model.c", "true"),)}
    given = {"synthesis._target_": "x.Perlin", "synthesis.count": 3}
    without = {"synthesis": {"_target_": "x.No"}}
    with_it = {"synthesis": {"_target_": "x.Perlin", "count": 3}}
    kept(tmp_path / "other", "draem/own/a", 0, config=without, started="1", image_auroc=0.9)
    kept(tmp_path / "other", "draem/own/a", 1, config=with_it, differs=given, started="2", image_auroc=0.9)
    assert found(tmp_path / "other").changed == []


def test_what_is_of_seed_machine_or_category_changes_no_recipe(tmp_path):
    for seed, machine in enumerate(("cpu", "cuda")):
        config = {
            **OLD,
            "seed": seed,
            "runs": machine,
            "data": {"root": machine, "category": machine, "seed": seed},
            "trainer": {"device": machine, "max_epochs": 3},
            "logger": {machine: 1},
        }
        kept(tmp_path, "padim/own/a", seed, config=config, started=str(seed), image_auroc=0.5)
    assert columns(tmp_path) == {(): {0: 0.5, 1: 0.5}}


@pytest.mark.parametrize("text", ["{", "a: &b 1", "- 1", "x: ${oc.env:HOME}", "a: " + "[" * 2000])
def test_a_config_that_no_run_wrote_tells_of_no_change(tmp_path, text):
    kept(tmp_path, "padim/own/a", 0, config=OLD, image_auroc=0.5)
    (kept(tmp_path, "padim/own/a", 1, image_auroc=0.5) / "config.yaml").write_text(text)
    assert found(tmp_path).changed == []


RECIPES = ["padim", "patchcore", "cpcae_knn", "hit_milf", "prff", "vt_adl", "mlff", "deep_knn"]


@pytest.mark.parametrize("model", RECIPES)
def test_the_keys_that_count_are_those_of_a_runs_hash_but_for_the_category(model):
    trainer = "ddp" if model == "prff" else "cpu"
    asked = composed([f"model={model}", "data=mvtec", "data.root=x", "data.category=y", f"trainer={trainer}"])
    checked = Checked.of(asked.cfg, ())
    hashed = {key for key in checked.values if checked.values[key] != "follows the seed"}
    theirs = {key for key in hashed if not key.startswith("data.synthesis.")} - {"data.category"}
    all_keys = {leaf.path for leaf in checked.leaves}
    assert {key for key in all_keys if counts(key)} == theirs
