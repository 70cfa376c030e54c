"""Mixes of pseudo anomalies, and their ratio to normals: counted exactly, the same however it is run."""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_lab.__main__ import main
from anomaly_lab.config.building import instantiate
from anomaly_lab.data.batches import AddressedSampler
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.mix import TRIES, Mix
from tests.support.data_modules import mvtec, ready
from tests.support.runs import checked, composed, on_tree, ran
from tests.support.trees import mvtec_tree

RATIOS = [0.0, 0.05, 0.25, 0.5, 0.75, 1.0, 2.3]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Spot(Synthesizer):
    """Sets the first pixel to a level, in a share of its calls."""

    def __init__(self, level: int, share: float = 1.0):
        self.level, self.share, self.source, self.ready, self.calls = level, share, f"level {level}", False, 0

    def setup(self, normals):
        self.ready = True

    def __call__(self, image, rng):
        assert self.ready
        self.calls += 1
        changed, mask = image.copy(), np.zeros(image.shape[:2], bool)
        if rng.random() < self.share:
            changed[0, 0], mask[0, 0] = self.level, True
        return changed, mask


def mixed(members: dict[str, Synthesizer], weights: dict[str, float], ratio: float | None = 0.5) -> Mix:
    mix = Mix(members=members, weights=weights, ratio=ratio)
    mix.setup([BLACK])
    return mix


BLACK = np.zeros((6, 6, 3), np.uint8)


# Mix


def test_members_are_drawn_by_weight_whatever_the_order():
    weights = {"a": 1.0, "b": 2.0, "c": 0.0, "d": 5.0}
    members = {name: Spot(level) for level, name in enumerate(weights, 1)}
    mix = mixed(members, weights)
    turned = mixed(dict(reversed(members.items())), dict(reversed(weights.items())))
    levels = np.array([mix(BLACK, rng(seed))[0][0, 0, 0] for seed in range(2000)])
    for level, weight in enumerate(weights.values(), 1):
        share = weight / 8
        assert abs((levels == level).mean() - share) <= 3 * math.sqrt(share * (1 - share) / 2000)
    assert [turned(BLACK, rng(seed))[0][0, 0, 0] for seed in range(200)] == levels[:200].tolist()
    assert not members["c"].ready
    parts = "a 0.125: level 1; b 0.25: level 2; d 0.625: level 4"
    assert mix.source == f"0.5 for each normal image, of {parts}"
    assert mixed(members, weights, None).source == parts


def test_with_a_ratio_an_empty_mask_is_drawn_again():
    rare, sure = Spot(1, share=0.4), Spot(2)
    mix, weights = mixed({"rare": rare, "sure": sure}, {"rare": 0.5, "sure": 0.5}), []
    for seed in range(400):
        image, mask = mix(BLACK, rng(seed))
        assert mask.sum() == 1
        weights.append(image[0, 0, 0] == 1)
    assert abs(np.mean(weights) - 0.5) < 3 * 0.5 / 20  # the rare one is not passed over
    once = mixed({"rare": rare}, {"rare": 1.0}, ratio=None)
    assert abs(np.mean([once(BLACK, rng(seed))[1].any() for seed in range(400)]) - 0.4) < 3 * 0.49 / 20


def test_after_so_many_tries_the_image_stays_normal():
    never = Spot(1, share=0.0)
    image, mask = mixed({"never": never}, {"never": 1.0})(BLACK, rng())
    assert never.calls == TRIES
    assert np.array_equal(image, BLACK)
    assert not mask.any()


@pytest.mark.parametrize(
    ("weights", "ratio", "text"),
    [
        ({"a": 1.0, "bb": 1.0}, None, r"synthesis\.weights: b is not in both"),
        ({"a": 1.0}, None, r"synthesis\.weights: b is not in both"),
        ({"a": 1.0, "b": 1.0, "c": 0.0}, None, r"synthesis\.weights: c is not in both"),
        ({"a": 1.0, "b": -0.5}, None, r"synthesis\.weights: .*below 0"),
        ({"a": 0.0, "b": 0.0}, None, r"synthesis\.weights: .*one above"),
        ({"a": 1.0, "b": 1.0}, -0.1, r"synthesis\.ratio: -0\.1"),
        ({"a": 1.0, "b": 1.0}, 101.0, r"synthesis\.ratio: 101\.0; give a number from 0 to 100"),
        ({"a": 1.0, "b": 1.0}, math.nan, r"synthesis\.ratio: nan"),
    ],
)
def test_misfit_is_named(weights, ratio, text):
    with pytest.raises(ConfigError, match=text):
        Mix(members={"a": Spot(1), "b": Spot(2)}, weights=weights, ratio=ratio)


# Its config


def test_the_shipped_mix():
    mix = instantiate(composed("synthesis=mix", "data=demo").synthesis, _convert_="all")
    assert (list(mix.members), mix.ratio) == (["cutpaste", "perlin_texture"], 0.5)
    assert mix.source.startswith(
        "0.5 for each normal image, of cutpaste 0.5: the image itself; perlin_texture 0.5: proc"
    )
    three = composed(
        "synthesis=mix", "data=demo", "synthesis.weights.nsa=0.25", "synthesis.members.nsa.num_patches=1"
    )
    mix = instantiate(three.synthesis, _convert_="all")
    assert mix.members["nsa"].num_patches == 1
    assert [member.probability for member in mix.members.values()] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("+synthesis.members.nsa.patches=3", r"synthesis\.members\.nsa\.patches is no key.*num_patches"),
        ("synthesis.members.cutpaste.variant=scars", r"synthesis\.members\.cutpaste\.variant"),
        ("synthesis.weights.nsa=much", r"synthesis\.weights\.nsa"),
        ("synthesis.ratio=half", r"synthesis\.ratio"),
    ],
)
def test_a_mistake_in_a_member_is_named(override, text):
    with pytest.raises(ConfigError, match=text):
        checked("synthesis=mix", "data=demo", override)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["synthesis.members.nsa.half_height=[0.5,0.1]"],
            "synthesis.members.nsa.half_height: [0.5, 0.1] is no range",
        ),
        (
            ["synthesis.weights.perlin_texture=0", "synthesis.members.perlin_texture.textures=nowhere"],
            "synthesis.members.perlin_texture.textures: nowhere",
        ),
        (["synthesis.ratio=101"], "synthesis.ratio: 101; give"),
        (["synthesis=cutpaste", "synthesis.jitter=3"], "synthesis.jitter: 3; give"),
        (
            ["data=synthetic_defects", "data.category=x", "data.defects.probability=3"],
            "data.defects.probability: 3 is",
        ),
        (["data.holdout=1"], "data.holdout: 1"),
    ],
)
def test_a_misfit_in_a_member_names_its_own_key(overrides, line, tmp_path, monkeypatch, capsys):
    given = ["synthesis=mix", "data=demo", "data.root=.", *overrides, f"runs={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["anomaly_lab", "model=draem_small", *given])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert main() == 1
    error = capsys.readouterr().err
    assert error.startswith(f"anomaly_lab: error: {line}")
    assert error.count("\n") == 1


def hashes(*overrides: str) -> tuple[str, str]:
    found = checked(*overrides)
    return found.config_hash, found.recipe_hash


def test_the_memory_of_a_member_makes_no_other_run():
    base = ("synthesis=mix", "data=demo")
    assert hashes(*base, "synthesis.members.perlin_texture.textures_gb=9") == hashes(*base)
    assert hashes(*base, "synthesis.ratio=0.25") != hashes(*base)


# The ratio


@pytest.mark.parametrize(
    ("ratio", "size"), [(r, n) for r in RATIOS for n in (1, 7, 40) if r == 0 or round(r * n)]
)
def test_an_epoch_has_all_normals_and_so_many_pseudo_images(ratio, size):
    sampler, added = AddressedSampler(size, 5, "shuffle", ratio), round(ratio * size)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler) == size + added
        assert [(draw.epoch, draw.position) for draw in draws] == [(epoch, k) for k in range(size + added)]
        assert sorted(draw.row for draw in draws if not draw.pseudo) == list(range(size))
        times = np.bincount([draw.row for draw in draws if draw.pseudo], minlength=size)
        assert times.sum() == added
        assert set(times) <= {added // size, -(-added // size)}
        assert draws == list(sampler)


@pytest.mark.parametrize("size", [1, 3, 7, 10, 33])
def test_a_ratio_too_small_for_one_pseudo_image_is_an_error(size):
    with pytest.raises(
        ConfigError, match=rf"synthesis\.ratio: 0\.01 of {size} training .*; give 0, or (.*)"
    ) as caught:
        AddressedSampler(size, 0, "shuffle", 0.01)
    assert AddressedSampler(size, 0, "shuffle", float(str(caught.value).split()[-1])).added == 1


def test_such_a_ratio_fails_before_there_is_a_run(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"synthesis\.ratio: 0\.05 of 6 training images"):
        ran(tmp_path, *training(tree), "synthesis.ratio=0.05")
    assert not list(tmp_path.rglob("part*/*"))


def test_pseudo_images_stand_among_the_normals_and_change_with_the_epoch():
    sampler, places, rows = AddressedSampler(60, 0, "shuffle", 0.5), [], []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        places += [draw.position for draw in sampler if draw.pseudo]
        rows.append(tuple(draw.row for draw in sampler if draw.pseudo))
    assert len(set(rows)) == 40
    counts, expected = np.histogram(places, bins=9, range=(0, 90))[0], 40 * 30 / 9
    assert ((counts - expected) ** 2 / expected).sum() < 26  # chi square, eight degrees of freedom: p = 0.001
    assert np.ptp(np.bincount(sum(rows, ()), minlength=60)) < 20  # no row is preferred: 20 of 40 epochs each


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_without_pseudo_images_nothing_else_moves(sampling):
    free, none = AddressedSampler(50, 7, sampling), AddressedSampler(50, 7, sampling, 0.0)
    assert [draw._replace(pseudo=False) for draw in free] == list(none)
    assert all(draw.pseudo for draw in free)
    some = AddressedSampler(50, 7, sampling, 0.5)
    assert sorted(draw.row for draw in some if not draw.pseudo) == sorted(draw.row for draw in none)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=6, size=(64, 64))


@pytest.mark.parametrize("ratio", [ratio for ratio in RATIOS if ratio != 0.05])  # of six images: none
def test_normal_draws_bypass_synthesis(tree, ratio):
    data = ready(mvtec(tree, synthesis=Mix(members={"spot": Spot(255)}, weights={"spot": 1.0}, ratio=ratio)))
    batches = list(data.train_dataloader())
    clean, image = (torch.cat([batch[k] for batch in batches]) for k in (1, 0))
    pseudo = torch.cat([batch.mask for batch in batches]).flatten(1).any(1)
    assert pseudo.sum() == round(6 * ratio)
    assert torch.equal(image[~pseudo], clean[~pseudo])
    assert (image[pseudo][:, :, 0, 0] == 255).all()
    found = sorted(picture.numpy().tobytes() for picture in clean[~pseudo])
    assert found == sorted(
        np.ascontiguousarray(own.transpose(2, 0, 1)).tobytes() for own in data.train.images
    )


MIXED = ["synthesis=mix", "synthesis.weights.nsa=1", "synthesis.members.perlin_texture.num_procedural=13"]
SMALL = ["model=draem_small", "data.image_size=64", "data.batch_size=2", "data.holdout=0"]
SHORT = [*MIXED, *SMALL, "trainer.max_steps=-1", "evaluation.overlays=0", "evaluation.bootstrap=2"]


def training(tree: Path, workers: int = 0) -> list[str]:
    return [
        *SHORT,
        *on_tree(tree),
        "trainer.max_epochs=3",
        "trainer.save_minutes=0",
        f"data.workers={workers}",
    ]


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory) -> Path:
    return ran(tmp_path_factory.mktemp("whole"), *training(tree))[1]


def test_the_steps_count_the_pseudo_images(whole):
    with (whole / "training.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * math.ceil((6 + 3) / 2)
    assert json.loads((whole / "manifest.json").read_text())["added_pseudo_images"] == 3


def test_a_run_that_breaks_and_goes_on_with_two_workers_gives_equal_bits(tree, whole, tmp_path, monkeypatch):
    draw, calls = Mix.__call__, []

    def breaks(self, image, rng):
        calls.append(1)
        if len(calls) == 8:  # in the third epoch of three pseudo images each
            raise OSError("broken")
        return draw(self, image, rng)

    monkeypatch.setattr(Mix, "__call__", breaks)
    with pytest.raises(OSError, match="broken"):
        ran(tmp_path, *training(tree))
    saved = torch.load(next(tmp_path.glob("runs/*/*/*/*/resume.ckpt")), weights_only=True)
    assert 10 <= saved["global_step"] < 15
    monkeypatch.undo()
    resumed = ran(tmp_path, *training(tree, 2))[1]
    ours, theirs = (
        torch.load(path / "model.ckpt", weights_only=True)["state_dict"] for path in (whole, resumed)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("model", ["nearest", "vt_adl_small"])
def test_a_method_that_learns_from_normal_images_takes_no_synthesis(model, tree, tmp_path):
    small = ["data.image_size=64", "evaluation.overlays=0", "textures=procedural"]
    with pytest.raises(
        ConfigError, match=r"synthesis: this method learns from normal images alone; give synth"
    ):
        ran(tmp_path, f"model={model}", *MIXED, *on_tree(tree), *small)
    assert not list(tmp_path.glob("runs/*"))
