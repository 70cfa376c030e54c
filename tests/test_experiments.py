"""The kept sweeps: each composes, its axes are its paper's, every full one has a small one."""

import csv
import re
from functools import lru_cache
from typing import Any

import pytest
from hydra import compose

from anomaly_lab.config.composing import _hydra, store_experiments
from anomaly_lab.runs.papers import paper_tables
from tests.support.runs import CHECKOUT, checked, options
from tests.support.supervision import is_supervised

pytestmark = pytest.mark.long

FILES = {file.stem: file for file in sorted((CHECKOUT / "experiments").glob("*.yaml"))}
# What is of no paper's table and has no sibling: smoke tests, controls, and what a report was made of.
ALONE = {"demo", "controls", "feature_memory", "mvtec", "gtanoic"}
ALONE |= {"cpcae_highres", "cpcae_highres_baselines"}
TABLES = {table.name: table for table in paper_tables()}
RECIPES = set(options("model"))
# Which table an experiment repeats; two where one run has the metrics of both.
REPEATS = {
    "prff_mvtec": ["prff_table3", "prff_table4"],
    "prff_gtanoic": ["prff_table5", "prff_table6"],
    "prff_iterations": ["prff_table7"],
    "prff_components": ["prff_table8"],
    "draem_mvtec": ["draem_table1", "draem_table2"],
    "draem_ablation": ["draem_table3"],
    "draem_ablation_networks": ["draem_table3"],
    "draem_ablation_defects": ["draem_table3"],
    "cpcae_zipper": ["cpcae_table3"],
    "cpcae_mvtec": ["cpcae_table4"],
    "vt_adl_btad": ["vt_adl_table4"],
    "vt_adl_gaussians": ["vt_adl_gaussians"],
    "vt_adl_noise": ["vt_adl_noise"],
    "mlff_mvtec": ["mlff_table1", "mlff_table2"],
    "mlff_ratio": ["mlff_table3"],
    "mlff_ablation": ["mlff_table4"],
    "pyramidal_mnist": ["vt_adl_table2"],
    "piade_mvtec": ["piade_vectors"],
    "piade_losses": ["piade_losses"],
}
NO_TABLE = {
    "all_methods",
    "capsnet_anomalies",
    "hit_heldout",
    "hit_levels",
    "hit_pinned",
    "hit_robustness",
    "mlff_losses",
    "piade_skip",
    "segmenters",
}


@lru_cache
def axes(experiment: str) -> dict[str, list[str]]:
    """Return the values of each key that an experiment sweeps or sets, as Hydra puts its files together."""
    store_experiments()
    with _hydra(None):
        hydra: Any = compose("config", [f"experiment={experiment}"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    params = hydra.sweeper.params.items()
    return {key: re.findall(r"(?:\[.*?\]|[^,])+", str(values)) for key, values in params}


def method(recipe: str) -> str:
    """Return what the papers' tables call the method of a recipe."""
    return recipe.removesuffix("_small").removesuffix("_released").removesuffix("_full")


def given(cell: dict[str, str]) -> list[str]:
    """Return a job's overrides, with a category where the experiment leaves it to the command line."""
    category = "part" if cell.get("data", "mvtec") == "mvtec" else None
    wanted = {"data.root": "some/dir"} | ({"data": "mvtec", "data.category": category} if category else {})
    return [f"{key}={value}" for key, value in (wanted | cell).items()]


@pytest.mark.parametrize("experiment", FILES)
def test_the_first_job_and_each_value_of_an_axis_are_valid_configs(experiment):
    swept = axes(experiment)
    first = {key: values[0] for key, values in swept.items()}
    # A category is a word to the config; those of a table are compared with its csv below.
    others = {key: values[1:] for key, values in swept.items() if key not in {"data.category", "seed"}}
    cells = [first, *(first | {key: value} for key, values in others.items() for value in values)]
    for cell in cells:
        assert checked(*given(cell)).leaves
    assert len([values for values in swept.values() if len(values) > 1]) >= 1
    assert checked(f"experiment={experiment}", "hydra.mode=RUN", *given(first)).leaves


def test_every_full_experiment_has_a_small_one_and_every_table_is_named():
    full = FILES.keys() - ALONE - {name for name in FILES if name.endswith("_small")}
    assert full == REPEATS.keys() | NO_TABLE
    assert {f"{name}_small" for name in full} == {name for name in FILES if name.endswith("_small")}
    # Not repeated: DAGM has no data set here; a user's run and published weights.
    repeated = {table for tables in REPEATS.values() for table in tables}
    others = {"draem_table4", "draem_checkpoints", "vt_adl_table3", "vt_adl_user_run"}
    assert TABLES.keys() - repeated == others


@pytest.mark.parametrize("full", sorted(REPEATS.keys() | NO_TABLE))
def test_a_small_one_asks_the_same_of_small_recipes(full):
    ours, small = axes(full), axes(f"{full}_small")
    assert [method(one) for one in small["model"]] == [method(one) for one in ours["model"]]
    for one, other in zip(ours["model"], small["model"], strict=True):
        assert other == (f"{one}_small" if f"{one}_small" in RECIPES else one)
    assert small.keys() - ours.keys() <= {"data.holdout"}
    for key in ours.keys() - {"model", "seed", "data.category", "data.image_size", "model.backbone.layers"}:
        assert small[key] == ours[key], key
    assert set(small.get("data.category", [])) <= set(ours.get("data.category", []))
    text = FILES[f"{full}_small"].read_text()
    assert f"experiment={full}_small" in text
    assert all(f"papers/{table}.csv" in text for table in REPEATS.get(full, []))


@pytest.mark.parametrize("experiment", REPEATS)
def test_an_experiment_has_the_rows_and_columns_of_its_tables(experiment):
    swept, text = axes(experiment), FILES[experiment].read_text()
    cells = [cell for table in REPEATS[experiment] for cell in TABLES[table].cells]
    assert {method(one) for one in swept["model"]} == {c.method for c in cells} & RECIPES
    assert all(f"papers/{table}.csv" in text for table in REPEATS[experiment])
    assert f"experiment={experiment} " in text
    assert set(swept["data"]) <= {cell.data or "mvtec" for cell in cells}
    if printed := {cell.category for cell in cells} - {""}:
        assert set(swept["data.category"]) == printed
    else:  # means over all of the data set
        assert swept["data.category"] == axes("mvtec")["data.category"]
    for key in {key for cell in cells for key, _ in cell.settings if "." in key}:
        labels = {one for cell in cells for name, one in cell.settings if name == key}
        assert labels - {""} <= set(swept[key]), key
        assert "" in labels or labels == set(swept[key]), key  # a label that was lost may be any value


def test_draems_ablations_have_all_rows_of_its_table_that_have_keys():
    rows = {
        ("0", "[1.0,1.0]"): "no_augmentation_no_opacity",
        ("3", "[1.0,1.0]"): "augmentation_only",
        ("0", "[0.2,1.0]"): "opacity_only",
        ("3", "[0.2,1.0]"): "all",
    }
    swept, text = axes("draem_ablation"), FILES["draem_ablation"].read_text()
    keys = swept["synthesis.num_augmenters"], swept["synthesis.texture_weight"]
    assert list(rows) == [(count, weight) for weight in keys[1] for count in keys[0]]
    recipe = checked("model=draem", "data=demo").config["synthesis"]
    assert (str(recipe["num_augmenters"]), str(recipe["texture_weight"]).replace(" ", "")) == list(rows)[-1]
    with (CHECKOUT / "experiments" / "papers" / "draem_table3.csv").open() as file:
        printed = {row["variant"] for row in csv.DictReader(file)}
    networks = set(axes("draem_ablation_networks")["model.networks"])
    defects = set(axes("draem_ablation_defects")["synthesis"])
    by_a_folder_or_not_at_all = {"imagenet_textures", "simulated_anomalies"}
    assert {*rows.values(), *networks, *defects, *by_a_folder_or_not_at_all} == printed
    assert all(row in text for row in printed)  # which have a key, and which have none


def test_all_methods_are_all_that_learn_without_labels():
    full = {name for name in RECIPES if not name.endswith(("_small", "_full")) and not is_supervised(name)}
    assert set(axes("all_methods")["model"]) == full


@pytest.mark.parametrize("experiment", ["cpcae_zipper", "cpcae_mvtec"])
@pytest.mark.parametrize("size", ["", "_small"])
def test_the_five_methods_of_cpcae_see_the_same_photographs_at_one_size(experiment, size):
    swept = axes(experiment + size)
    assert len(swept["model"]) == 5
    assert (swept["data.register"], swept["data.crop"]) == (["true"], ["auto"])
    assert swept["data.image_size"] == (["256"] if size else ["1024"])
    assert "data.holdout" in swept or all(
        checked(f"model={one}", "data=demo").config["data"]["holdout"] == 0 for one in swept["model"]
    )


def test_the_high_resolution_chain_and_its_baselines_see_the_same_images():
    """The five methods of Table 4, in two commands: only two of them have an autoencoder's key."""
    chain, others = axes("cpcae_highres"), axes("cpcae_highres_baselines")
    assert {method(one) for one in (*chain["model"], *others["model"])} == {
        method(one) for one in axes("cpcae_mvtec")["model"]
    }
    of_the_chain = {"model.autoencoder.image_size", "model.autoencoder.activity_l1"}
    assert chain.keys() - others.keys() == of_the_chain
    assert all(chain[key] == others[key] for key in others.keys() - {"model"})
    assert chain["model.autoencoder.image_size"] == [min(chain["data.image_size"], key=int)]
