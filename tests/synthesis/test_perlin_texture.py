"""PerlinTexture by its definition: mask, threshold, blend, augmenters."""

import numpy as np
import pytest
from scipy import ndimage

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.augmenters import AUGMENTERS
from anomaly_lab.synthesis.noise import perlin
from tests.support.synthesizers import perlin_by_loops, perlin_texture, photographs, rng, write_textures

CODE_ONLY = ("gamma_contrast", "invert", "rotate")


def test_mask_is_noise_above_threshold():
    synthesizer, image = perlin_texture(probability=1.0, rotate_degrees=0.0), photographs()[0]
    filled = 0
    for seed in range(40):
        twin = rng(seed)
        twin.random()
        rows, columns = 2 ** twin.integers(0, 6, 2)
        expected = (
            perlin_by_loops((48, 64), (rows, columns), twin)
            if seed < 4
            else perlin((48, 64), (rows, columns), twin)
        )
        mask = synthesizer(image, rng(seed))[1]
        assert np.array_equal(mask, expected > 0.5)
        filled += mask.any()
    assert filled > 30


def test_mask_is_turned_with_zero_fill():
    straight, turned = (
        perlin_texture(probability=1.0, threshold=-0.01, rotate_degrees=d) for d in (0.0, 90.0)
    )
    image = photographs()[0]
    corners = np.stack([[turned(image, rng(seed))[1][[0, 0, -1, -1], [0, -1, 0, -1]]] for seed in range(20)])
    assert corners.mean() > 0.9  # outside is 0, above -0.01
    same = [np.array_equal(turned(image, rng(s))[1], straight(image, rng(s))[1]) for s in range(20)]
    assert not any(same)


def test_lattice_sets_the_size_of_the_defects():
    image = photographs(1, (128, 128))[0]

    def blobs(exponents):
        synthesizer = perlin_texture(
            probability=1.0, lattice_exponents=exponents, num_procedural=1, num_augmenters=0
        )
        synthesizer.setup(image[None])
        return np.mean([ndimage.label(synthesizer(image, rng(seed))[1])[1] for seed in range(10)])

    few, some, many = (blobs([k, k]) for k in (0, 2, 5))
    assert few < 3 < some < 20 < many


def test_rectangles_are_upright_within_their_bounds_and_of_the_noises_area():
    image = photographs(1, (128, 128))[0]
    rectangles, noise = (
        perlin_texture(probability=1.0, num_procedural=1, num_augmenters=0, shape=shape)
        for shape in ("rectangles", "noise")
    )
    single = perlin_texture(
        probability=1.0, num_augmenters=0, shape="rectangles", rectangles=[1, 1], rectangle_sides=[0.1, 0.5]
    )
    sides = []
    for synthesizer in (rectangles, noise):
        synthesizer.setup(image[None])
    for seed in range(100):
        mask = single(photographs()[0], rng(seed))[1]
        rows, columns = mask.any(1), mask.any(0)
        assert np.array_equal(mask, np.outer(rows, columns))
        assert ndimage.label(rows)[1] == ndimage.label(columns)[1] == 1
        sides.append([rows.sum() / 48, columns.sum() / 64])
    spread = np.ptp(sides, 0)
    assert np.min(sides) > 0.09
    assert np.max(sides) < 0.51
    assert spread.min() > 0.35
    areas = [[made(image, rng(seed))[1].mean() for seed in range(300)] for made in (rectangles, noise)]
    means = [np.mean([area for area in one if area]) for one in areas]
    assert means[0] == pytest.approx(means[1], rel=0.2)
    counts = {ndimage.label(rectangles(image, rng(seed))[1])[1] for seed in range(200)}
    assert counts <= {1, 2, 3, 4}
    assert {1, 2, 3} <= counts


def test_threshold_may_be_drawn_from_a_range():
    image = photographs()[0]
    low, drawn, high = (perlin_texture(probability=1.0, threshold=t) for t in (0.2, [0.2, 0.8], 0.8))
    areas = set()
    for seed in range(30):
        loose, mask, tight = (s(image, rng(seed))[1] for s in (low, drawn, high))
        assert not (tight & ~mask).any()
        assert not (mask & ~loose).any()
        areas.add((mask.sum() > tight.sum(), mask.sum() < loose.sum()))
    assert (True, True) in areas


@pytest.mark.parametrize("weights", [(0.2, 1.0), (0.1, 1.0)])  # code, text
def test_blend_and_opacity(tmp_path, weights):
    folder = write_textures(tmp_path, (250, 130, 10))
    changes = {"probability": 1.0, "threshold": -2.0, "num_augmenters": 0, "textures": folder}
    synthesizer = perlin_texture(texture_weight=list(weights), **changes)
    image, found = photographs()[0].astype(float), []
    difference = np.array([250.0, 130.0, 10.0]) - image
    for seed in range(300):
        result, mask = synthesizer(photographs()[0], rng(seed))
        assert mask.all()
        assert np.array_equal(result[difference == 0], image[difference == 0])
        # One weight w explains all pixels: |image + w * difference - result| <= 0.5, an interval of w each.
        change = (result - image)[difference != 0]
        ends = np.sort((change + np.array([[-0.5], [0.5]])) / difference[difference != 0], 0)
        assert ends[0].max() <= ends[1].min() + 1e-6
        found.append((ends[0].max() + ends[1].min()) / 2)
    low, high = weights
    assert low - 0.001 < min(found) < low + 0.03
    assert high - 0.03 < max(found) < high + 0.001


def test_share_of_clean_images():
    image = photographs(1, (8, 8))[0]
    for share in (0.0, 0.3, 0.5, 1.0):
        synthesizer = perlin_texture(probability=share, threshold=-2.0, num_procedural=1, num_augmenters=0)
        synthesizer.setup(image[None])
        clean = np.mean([not synthesizer(image, rng(seed))[1].any() for seed in range(800)])
        assert abs(clean - (1 - share)) <= 3 * np.sqrt(share * (1 - share) / 800)


# DRAEM, its text, PRFF-AD
@pytest.mark.parametrize(("pool", "number"), [("code", 3), ("text", 3), ("code", 4)])
def test_different_augmenters_in_random_order(monkeypatch, pool, number):
    names = [name for name in AUGMENTERS if pool == "code" or name not in CODE_ONLY]
    assert len(names) == {"code": 10, "text": 7}[pool]
    used: list[str] = []
    for name in AUGMENTERS:
        monkeypatch.setitem(AUGMENTERS, name, lambda image, generator, name=name: used.append(name) or image)
    synthesizer = perlin_texture(
        probability=1.0, threshold=-2.0, augmenters=names, num_augmenters=number, num_procedural=1
    )
    draws = []
    for seed in range(300):
        used.clear()
        synthesizer(photographs()[0], rng(seed))
        draws.append(tuple(used))
    assert all(len(set(draw)) == number == len(draw) for draw in draws)
    assert {name for draw in draws for name in draw} == set(names)
    assert len(set(draws)) > 150


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"probability": 1.5}, "synthesis.probability"),
        ({"num_augmenters": 11}, "synthesis.num_augmenters"),
        ({"threshold": [0.5, 0.2]}, "synthesis.threshold"),
        ({"texture_weight": [0.5]}, "synthesis.texture_weight"),
        ({"lattice_exponents": [0, 1, 2]}, "synthesis.lattice_exponents"),
        ({"rectangles": [0, 2]}, "synthesis.rectangles=.*: give at least 1"),
        ({"rectangles": [4, 2]}, "synthesis.rectangles"),
        (
            {"rectangle_sides": [0.0, 0.2]},
            "synthesis.rectangle_sides=.*: give at least 1, with sides above 0",
        ),
        ({"rectangle_sides": [0.5, 1.2]}, "synthesis.rectangle_sides"),
    ],
)
def test_misfit_is_named(changes, key):
    with pytest.raises(ConfigError, match=key):
        perlin_texture(**changes)
