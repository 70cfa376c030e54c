"""CutPaste: the stated laws, and its geometry by loops."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from anomaly_lab.synthesis.cutpaste import turned
from tests.support.synthesizers import box, cutpaste, noise, rng


@pytest.mark.parametrize("size", [(256, 256), (128, 512)])
def test_rectangles_follow_the_laws(size):
    synthesizer, image = cutpaste(variant="normal", jitter=0.0), noise(size)[0]
    boxes = [box(synthesizer(image, rng(seed))[1]) for seed in range(250)]
    top, left, height, width = np.array(boxes).T / np.array([[size[0]], [size[1]], [size[0]], [size[1]]])
    assert stats.kstest(height * width, stats.uniform(0.02, 0.13).cdf).pvalue > 1e-3
    assert (
        stats.kstest(np.log(width / height), stats.uniform(math.log(0.3), -2 * math.log(0.3)).cdf).pvalue
        > 1e-3
    )
    for start, side in ((top, height), (left, width)):
        assert stats.kstest(start / (1 - side), "uniform").pvalue > 1e-3


def cdf(law: str, low: float):
    """Return the distribution function of the width by height, written out: each law's own integral."""

    def at(value: float) -> float:
        if law == "log_uniform":
            return math.log(value / low) / math.log(1 / low**2)
        if law == "uniform":
            return (value - low) / (1 / low - low)
        return 0.5 * (value - low) / (1 - low) if value < 1 else 0.5 + 0.5 * (value - 1) / (1 / low - 1)

    return np.vectorize(at)


@pytest.mark.parametrize("law", ["log_uniform", "halves", "uniform"])
def test_the_aspect_has_the_law_of_its_name_and_no_other(law):
    synthesizer, image = cutpaste(variant="normal", jitter=0.0, aspect_law=law), noise((512, 512))[0]
    boxes = [box(synthesizer(image, rng(seed))[1]) for seed in range(150)]
    aspects = np.array([width / height for *_, height, width in boxes]).clip(0.3, 1 / 0.3)
    assert stats.kstest(aspects, cdf(law, 0.3)).pvalue > 1e-2
    many = [synthesizer._aspect(one) for one in rng(5).uniform(-1, 1, 3000)]
    fits = {one: stats.kstest(many, cdf(one, 0.3)).pvalue for one in ("log_uniform", "halves", "uniform")}
    assert fits.pop(law) > 1e-2
    assert max(fits.values()) < 1e-6


def test_aspects_are_those_of_a_loop_over_the_same_draws():
    """And the first law is what it was before it had a name, to the bit."""
    drawn = rng(3).uniform(-1, 1, 200)
    for law in ("log_uniform", "halves", "uniform"):
        synthesizer = cutpaste(aspect_law=law)
        found = [synthesizer._aspect(one) for one in drawn]
        for one, aspect in zip(drawn, found, strict=True):
            wanted = {
                "log_uniform": 0.3**one,
                "halves": 1 - (1 - 0.3) * -one if one < 0 else 1 + (1 / 0.3 - 1) * one,
                "uniform": 0.3 + (1 / 0.3 - 0.3) * (one + 1) / 2,
            }[law]
            assert aspect == wanted if law == "log_uniform" else aspect == pytest.approx(wanted, rel=1e-12)
        assert min(found) >= 0.3 - 1e-12
        assert max(found) <= 1 / 0.3 + 1e-12
    assert np.mean(np.array(found) > 1) > 0.7  # of the last law, most are wide


def test_scars_follow_the_laws_and_grow_with_the_image():
    straight, image = cutpaste(variant="scar", jitter=0.0, rotation=[0, 0]), noise((512, 1024))[0]
    sides = np.array([box(straight(image, rng(seed))[1])[2:] for seed in range(250)]) + rng().uniform(
        -0.5, 0.5, (250, 2)
    )
    assert stats.kstest(sides[:, 0], stats.uniform(20, 30).cdf).pvalue > 1e-3
    assert stats.kstest(sides[:, 1], stats.uniform(4, 28).cdf).pvalue > 1e-3
    thin = cutpaste(variant="scar", jitter=0.0, scar_width=[4, 4], scar_height=[25, 25])
    angles = []
    for seed in range(250):
        mask = thin(image, rng(seed))[1]
        assert 350 < mask.sum() < 450  # 8 x 50 pixels, whatever the angle
        y, x = np.nonzero(mask)
        axis = np.linalg.eigh(np.cov(x, y))[1][:, 1]
        angles.append(math.degrees(math.atan(axis[0] / axis[1])))  # counterclockwise, from the vertical
    assert stats.kstest(angles, stats.uniform(-45, 90).cdf).pvalue > 1e-3


def test_union_is_either_as_often_as_the_other():
    synthesizer, image = cutpaste(jitter=0.0), noise((256, 256))[0]
    scars = np.mean([synthesizer(image, rng(seed))[1].mean() < 0.015 for seed in range(400)])
    assert abs(scars - 0.5) < 3 * 0.5 / 20


@pytest.mark.parametrize("variant", ["normal", "scar"])
def test_the_patch_is_a_piece_of_the_image_by_loops(variant):
    synthesizer = cutpaste(variant=variant, jitter=0.0, rotation=[0, 0])
    image = noise((60, 80))[0]
    for seed in range(15):
        result, mask = synthesizer(image, rng(seed))
        top, left, height, width = box(mask)
        pasted = result[top : top + height, left : left + width]
        sources = [
            (y, x)
            for y in range(60 - height + 1)
            for x in range(80 - width + 1)
            if (image[y, x] == pasted[0, 0]).all() and (image[y : y + height, x : x + width] == pasted).all()
        ]
        assert len(sources) == 1
        assert sources[0] != (top, left)


def test_turning_is_its_definition_by_loops():
    for seed, (height, width, degrees) in enumerate(
        [(5, 3, 30.0), (12, 4, -45.0), (7, 7, 44.0), (25, 2, -10.0)]
    ):
        patch = rng(seed).integers(1, 256, (height, width, 3)).astype(np.uint8)
        image, inside = turned(patch, degrees)
        a = math.radians(degrees)
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                # y points up
                offset = (x - (inside.shape[1] - 1) / 2) + 1j * -(y - (inside.shape[0] - 1) / 2)
                back = offset * (math.cos(a) - 1j * math.sin(a))
                row, column = (height - 1) / 2 - back.imag, (width - 1) / 2 + back.real
                nearest = round(row), round(column)
                within = 0 <= nearest[0] < height and 0 <= nearest[1] < width
                assert inside[y, x] == within
                assert not within or (image[y, x] == patch[nearest]).all()
        assert abs(inside.sum() - height * width) <= height + width


def test_turning_by_a_quarter_is_exact():
    patch = noise((6, 4))[0]
    for degrees, quarters in ((0, 0), (90, 1), (180, 2), (-90, 3)):
        image, inside = turned(patch, degrees)
        assert inside.all()
        assert np.array_equal(image, np.rot90(patch, quarters))
        assert np.array_equal(image, np.asarray(Image.fromarray(patch).rotate(degrees, expand=True)))


def test_jitter_keeps_to_its_bounds():
    grey = np.full((40, 40, 3), 100, np.uint8)
    levels = np.concatenate([np.unique(cutpaste(variant="normal")(grey, rng(seed))[0]) for seed in range(80)])
    assert 89 <= levels.min() <= 91
    assert 109 <= levels.max() <= 111
    red = np.zeros((40, 40, 3), np.uint8) + np.array([200, 40, 40], np.uint8)
    patches = (cutpaste(variant="normal")(red, rng(seed)) for seed in range(80))
    colours = np.array([image[mask][0] for image, mask in patches])[None].astype(np.uint8)
    hue = (cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)[0, :, 0].astype(int) + 90) % 180 - 90  # 180 steps
    assert -19 <= hue.min() <= -15
    assert 15 <= hue.max() <= 19
