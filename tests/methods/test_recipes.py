"""One contract for every recipe that is found: a new method is under test the moment its yaml exists."""

import csv
import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_lab
from anomaly_lab.config.building import instantiate
from tests.support.runs import checked, composed, on_tree, options, ran
from tests.support.supervision import defects, is_supervised
from tests.support.trees import mvtec_tree

RECIPES = options("model")
# What a CPU trains in a test: the small sibling of a trained method, or a method that needs none.
SMALL = [name for name in RECIPES if f"{name}_small" not in RECIPES and not name.endswith("_full")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=7, good=3, bad=3, size=(70, 80))


def tiny(tree: Path, name: str) -> list[str]:
    short = ["data.image_size=64", "trainer=debug", "data.batch_size=3", "evaluation.bootstrap=10"]
    return [f"model={name}", *on_tree(tree), *short, *defects(name)]


NAMED = {"gtanoic": "D_A", "mpdd": "tubes", "kolektor": "KolektorSDD", "zipper": "zipper_1", "btad": "02"}
NAMED |= {"visa": "pcb1", "mvtec_loco": "pushpins", "mvtec_ad2": "vial", "mnist": "digit_3"}
NAMED |= {"digits": "digit_3", "fashion_mnist": "bag", "cifar10": "cat", "coil100": "obj3"}
ROOTED = {"demo": [], "folder": ["data.root=photographs"], "magnetic_tile": ["data.root=x"]}


def on(data: str) -> list[str]:
    """Return the overrides that choose a data set, with what it must be given."""
    return [f"data={data}", *ROOTED.get(data, ["data.root=x", f"data.category={NAMED.get(data, 'part')}"])]


def turned(*lists: list[str]) -> list[tuple[str, ...]]:
    """Return rows in which each two values of the first list and of any other meet, and no more."""
    first, *others = lists
    longest = max(map(len, others))
    return [
        (one, *(other[(row + turn) % len(other)] for other in others))
        for row, one in enumerate(first)
        for turn in range(longest)
    ]


@pytest.mark.parametrize(
    ("model", "synthesis", "trainer", "data"),
    turned(RECIPES, options("synthesis"), options("trainer"), ["demo", "mvtec", "folder"]),
)
def test_every_recipe_takes_every_synthesis_trainer_and_layout(model, synthesis, trainer, data):
    assert checked(f"model={model}", *on(data), f"synthesis={synthesis}", f"trainer={trainer}").leaves


def test_the_rows_have_every_pair():
    lists = (RECIPES, options("synthesis"), options("trainer"), ["demo", "mvtec", "folder"])
    rows = turned(*lists)
    for place, other in enumerate(lists[1:], 1):
        assert {(row[0], row[place]) for row in rows} == set(itertools.product(RECIPES, other))


# All data sets share the keys that a recipe may set: a few of each with all others say what all pairs would.
@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("model", ["draem", "cpcae_knn", "hit_milf_small"])
def test_recipes_take_data_sets(model, data):
    assert checked(f"model={model}", *on(data)).leaves


@pytest.mark.parametrize("model", RECIPES)
def test_every_recipe_builds_without_memory_for_its_weights(model):
    with torch.device("meta"):
        method = instantiate(composed(f"model={model}", "data=demo").model, _convert_="all")
    assert all(p.is_meta for p in method.parameters())
    assert isinstance(method.localises, bool)


@pytest.fixture(scope="module")
def first_run(tree, tmp_path_factory):
    """Return a recipe's run with seed 0, done once for the tests that look at it."""
    return lru_cache(lambda model: ran(tmp_path_factory.mktemp(model), *tiny(tree, model)))


@pytest.mark.long
@pytest.mark.parametrize("model", SMALL)
def test_training_changes_the_method_and_the_run_keeps_what_it_promises(model, tree, first_run):
    untrained = instantiate(composed(*tiny(tree, model)).model, _convert_="all").state_dict()
    metrics, path = first_run(model)
    trained = torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(value, untrained[key]) for key, value in trained.items())  # or another shape
    assert {"image_auroc", "image_ap", "image_f1_max"} <= metrics.keys()
    localises = instantiate(composed(*tiny(tree, model)).model, _convert_="all").localises
    assert ({"pixel_auroc", "pixel_ap", "pixel_aupro"} <= metrics.keys()) is localises
    for name in (
        "config.yaml",
        "overrides.txt",
        "manifest.json",
        "metrics.json",
        "predictions.csv",
        "curves.npz",
        "training.csv",
    ):
        assert (path / name).stat().st_size > 0, name
    assert not (path / "resume.ckpt").exists()
    # 3 + 3 images: a missed and a false one, two hits; one hit where a defect has left for the training.
    assert len(list((path / "maps").glob("*.png"))) == 4 - is_supervised(model)
    assert not list(path.rglob("*.part"))


@pytest.mark.parametrize("model", SMALL)
def test_prediction_has_the_promised_form_and_survives_saving(model, first_run):
    _, path = first_run(model)
    with (path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    arrays = [np.array(Image.open(row["path"])) for row in rows]
    loaded = anomaly_lab.load(path)
    prediction = loaded.predict(arrays)
    assert prediction.anomaly_map.shape == (len(rows), 64, 64)
    assert prediction.score.shape == (len(rows),)
    assert prediction.anomaly_map.dtype == prediction.score.dtype == torch.float32
    assert prediction.anomaly_map.isfinite().all()
    scores = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(prediction.score, scores, rtol=1e-4, atol=1e-6)
    alone = torch.cat([loaded.predict([array]).score for array in arrays])
    torch.testing.assert_close(alone, prediction.score, rtol=1e-4, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("model", SMALL)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(model, tree, tmp_path, first_run):
    wanted = [*tiny(tree, model), "evaluation.overlays=0"]
    again, other = (ran(tmp_path / str(seed), *wanted, f"seed={seed}") for seed in (0, 1))
    metrics, path = first_run(model)
    paths = (path, again[1], other[1])
    first, same, different = (torch.load(p / "model.ckpt", weights_only=True)["state_dict"] for p in paths)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert metrics == again[0]
    learned = [key for key, value in first.items() if value.is_floating_point() and value.numel() > 1]
    assert any(
        not torch.equal(first[key], different[key]) for key in learned
    )  # unlike shapes are unequal, too
