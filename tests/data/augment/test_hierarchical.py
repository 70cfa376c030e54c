"""The hierarchical transformation: its operations against PIL, SciPy and formulae, its tree, poison."""

import io
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from anomaly_lab.data.augment import hierarchical
from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.data.augment.hierarchical import (
    FAMILIES,
    OPERATIONS,
    HierarchicalTransformation,
    Operation,
    poisoned,
)
from anomaly_lab.errors import ConfigError

SIZE = (60, 80)
NAMES = [(family, name) for family in FAMILIES for name in OPERATIONS[family]]
# Low, high, neutral of methods.md 4.2, written out again; the range of the light is ours.
RANGES = {
    "rotation": [(-10, 10, 0)],
    "shift": [(-0.05, 0.05, 0)] * 2,
    "scale": [(0.9, 1.1, 1)],
    "brightness": [(0.6, 1.4, 1)],
    "contrast": [(0.7, 1.3, 1)],
    "gamma": [(0.7, 1.5, 1)],
    "blur": [(0.5, 2, 0)],
    "noise": [(0.01, 0.05, 0)],
    "jpeg": [(40, 90, 100)],
    "light": [(0.4, 1.6, 1)],
}


def rng(*address):
    return np.random.default_rng(address)


def photograph(seed=0, size=SIZE):
    """A smooth colourful image with fine noise, (H, W, 3) uint8; it repeats nowhere."""
    coarse = cv2.resize(rng(seed).integers(20, 220, (9, 12, 3), np.uint8), size[::-1])
    return (coarse + rng(seed, 1).integers(0, 20, (*size, 3), np.uint8)).astype(np.uint8)


def change(image, result):
    return np.abs(result.astype(float) - image).mean()


def resampled(image, degrees, right, down, scale):
    """Where each pixel of the result comes from, in float64, interpolated by SciPy; edges repeated."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - right * width - (width - 1) / 2, y - down * height - (height - 1) / 2
    cos, sin = np.cos(np.radians(degrees)) / scale, np.sin(np.radians(degrees)) / scale
    source = np.stack([sin * x + cos * y + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2])
    channels = [
        ndimage.map_coordinates(c.astype(float), source, order=1, mode="nearest")
        for c in image.T.swapaxes(1, 2)
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(
    "move",
    [
        (7.3, 0, 0, 1),
        (-10, 0, 0, 1),
        (0, 0.04, -0.03, 1),
        (0, 0, 0, 0.9),
        (0, 0, 0, 1.1),
        (5, 0.02, 0.05, 0.95),
    ],
)
def test_warp_is_scipys(move):
    image = cv2.GaussianBlur(photograph(), (0, 0), 1.5)
    degrees, right, down, scale = move
    found = hierarchical.warped(image, degrees, (right, down), scale)
    # OpenCV's positions may have steps of 1/32 pixel
    assert np.abs(found - resampled(image, *move)).max() < 2.5


def test_rotation_is_counterclockwise_as_pils():
    image = photograph(size=(61, 61))
    inside = np.hypot(*(np.mgrid[:61, :61] - 30)) < 28
    turned = np.asarray(Image.fromarray(image).rotate(10, Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(hierarchical.warped(image, 10, (0, 0), 1) - turned)[inside].mean() < 1


def test_brightness_contrast_and_gamma_are_their_formulae():
    image = photograph()
    value = image.astype(np.float64)
    for factor in (0.6, 0.87, 1.4):
        np.testing.assert_array_equal(
            hierarchical.brightened(image, factor), np.clip(np.rint(value * factor), 0, 255)
        )
    for factor in (0.7, 1.3):
        expected = np.clip(value.mean() + factor * (value - value.mean()), 0, 255)
        assert np.abs(hierarchical.contrasted(image, factor) - expected).max() <= 0.5 + 1e-9
    for gamma in (0.7, 1.5):
        expected = [[255 * (v / 255) ** gamma for v in row] for row in value[..., 0]]
        assert np.abs(hierarchical.gamma_corrected(image, gamma)[..., 0] - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("sigma", [0.5, 1, 2])
def test_blur_is_scipys(sigma):
    image = photograph()
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")
    difference = np.abs(hierarchical.blurred(image, sigma) - expected)
    assert difference.max() < 2  # OpenCV cuts the kernel at 3 sigma
    assert difference.mean() < 0.5


def test_noise_has_its_sigma_in_each_channel_and_grey_stays_grey():
    flat = np.full((200, 200, 3), 100, np.uint8) + np.array([0, 1, 2], np.uint8)
    noise = hierarchical.noisy(flat, rng(1), 0.04).astype(float) - flat
    assert np.abs(noise.std((0, 1)) / 255 - 0.04).max() < 0.001
    assert np.abs(noise.mean((0, 1))).max() < 0.2
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02
    grey = hierarchical.noisy(np.full((200, 200, 3), 100, np.uint8), rng(1), 0.04)
    assert not np.ptp(grey, axis=2).any()
    assert abs(grey.std() / 255 - 0.04) < 0.001


@pytest.mark.parametrize("quality", [40, 65, 90])
def test_jpeg_is_pils(quality):
    image, file = photograph(), io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    difference = np.abs(hierarchical.compressed(image, quality) - np.asarray(Image.open(file)).astype(float))
    assert difference.mean() < 1  # one standard, two decoders
    assert difference.max() < 16


def test_light_is_its_formula():
    image, generator = photograph(), rng(7)
    right, down = generator.uniform(0.25, 0.75, 2)
    first, second = generator.uniform(0.15, 0.45, 2) * min(SIZE)
    angle = generator.uniform(0, np.pi)
    expected = np.zeros(image.shape)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            away = complex(x - right * SIZE[1], y - down * SIZE[0]) * np.exp(-1j * angle)
            weight = np.exp(-((away.real / first) ** 2 + (away.imag / second) ** 2))
            expected[y, x] = np.clip(image[y, x] * (1 - 0.6 * weight), 0, 255)
    assert np.abs(hierarchical.lit(image, rng(7), 0.4) - expected).max() <= 0.5 + 1e-6


def test_ranges_are_those_of_the_specification():
    found = {
        name: [tuple(s) for s in o.strengths] for family in FAMILIES for name, o in OPERATIONS[family].items()
    }
    assert found == RANGES


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_operation_contract(family, name):
    image = photograph()
    before, operation, grey = image.copy(), OPERATIONS[family][name], np.repeat(image[..., :1], 3, axis=2)
    image.setflags(write=False)
    for strengths in zip(*((s.low, s.high) for s in operation.strengths), strict=True):
        result = operation.apply(image, rng(1), *strengths)
        assert (result.dtype, result.shape) == (np.uint8, image.shape)
        assert result.flags["C_CONTIGUOUS"]
        assert np.array_equal(result, operation.apply(image, rng(1), *strengths))
        assert change(image, result) > 0.5
        assert np.ptp(operation.apply(grey, rng(1), *strengths), axis=2).max() == 0
    neutral = operation.apply(grey, rng(1), *(s.neutral or 1e-6 for s in operation.strengths))
    assert change(grey, neutral) < 0.5
    assert np.array_equal(image, before)


@pytest.fixture
def drawn(monkeypatch):
    """Every (operation, strengths) that is applied, in order."""
    seen = []

    def recorded(name, operation):
        def apply(image, generator, *strengths):
            strengths = tuple(map(float, strengths))
            seen.append((name, strengths))
            return operation.apply(image, generator, *strengths)

        return Operation(apply, operation.strengths)

    for family, name in NAMES:
        monkeypatch.setitem(OPERATIONS[family], name, recorded(name, OPERATIONS[family][name]))
    monkeypatch.setattr(hierarchical, "FLIP", recorded("flip", hierarchical.FLIP))
    return seen


def levels(drawn, augment, count=600):
    """Apply it so often; return the operations of each time."""
    image, found = photograph(size=(8, 8)), []
    for seed in range(count):
        drawn.clear()
        augment(image, rng(seed))
        found.append([name for name, _ in drawn])
    return found


def test_depth_one_is_one_operation_each_as_likely_as_another(drawn):
    found = levels(drawn, HierarchicalTransformation(1, 10, FAMILIES, False), 2000)
    assert {len(names) for names in found} == {1}
    counts = [sum(names == [name] for names in found) for _, name in NAMES]
    assert sum(counts) == 2000
    assert max(abs(count - 200) for count in counts) < 50  # 3.7 standard deviations


@pytest.mark.parametrize("depth", [2, 3])
def test_levels_are_equally_likely_and_their_operations_distinct(drawn, depth):
    found = levels(drawn, HierarchicalTransformation(depth, 10, FAMILIES, False), 900)
    counts = np.bincount([len(names) for names in found], minlength=4)
    assert counts[0] == 0
    assert counts[depth + 1 :].sum() == 0
    assert np.abs(counts[1 : depth + 1] - 900 / depth).max() < 55
    assert all(len(set(names)) == len(names) for names in found)
    pairs = {tuple(names) for names in found if len(names) == 2}
    assert any((b, a) in pairs for a, b in pairs)  # in any order


def test_composition_is_its_operations_in_the_order_drawn(drawn):
    image, augment = photograph(), HierarchicalTransformation(3, 1, ("geometry", "photometry"), True)
    depths = set()
    for seed in range(30):
        drawn.clear()
        found, expected = augment(image, rng(seed)), image
        depths.add(len(drawn))
        for name, strengths in list(drawn):
            operation = (
                hierarchical.FLIP
                if name == "flip"
                else next(f[name] for f in OPERATIONS.values() if name in f)
            )
            expected = operation.apply(expected, rng(0), *strengths)
        assert np.array_equal(found, expected)
    assert depths == {1, 2, 3}


def test_strengths_are_uniform_in_their_ranges(drawn):
    levels_of = HierarchicalTransformation(1, 1, FAMILIES, False)
    image = photograph(size=(8, 8))
    for seed in range(3000):
        levels_of(image, rng(seed))
    for name, ranges in RANGES.items():
        found = np.array([strengths for other, strengths in drawn if other == name])
        low, high = (np.array([limits[end] for limits in ranges]) for end in (0, 1))
        share = (found - low) / (high - low)
        assert share.min() >= 0
        assert share.min() < 0.05
        assert share.max() <= 1
        assert share.max() > 0.95
        assert np.abs(share.mean(axis=0) - 0.5).max() < 0.07


def test_families_and_flip_are_as_asked(drawn):
    geometry = {
        name
        for names in levels(drawn, HierarchicalTransformation(2, 1, ["geometry"], False))
        for name in names
    }
    assert geometry == {"rotation", "shift", "scale"}
    flipping = {
        name
        for names in levels(drawn, HierarchicalTransformation(2, 1, ["geometry"], True))
        for name in names
    }
    assert flipping == geometry | {"flip"}
    other = {
        name
        for names in levels(drawn, HierarchicalTransformation(2, 1, ["photometry"], True))
        for name in names
    }
    assert other == {"brightness", "contrast", "gamma"}
    image = photograph()
    np.testing.assert_array_equal(
        hierarchical.flipped(image), np.asarray(Image.fromarray(image).transpose(0))
    )


def test_transformation_is_an_augmentation_of_the_generator_alone():
    augment, image = HierarchicalTransformation(3, 10, FAMILIES, True), photograph()
    before = image.copy()
    assert isinstance(augment, Augmentation)
    assert augment.copies == 10
    results = [augment(image, rng(seed)) for seed in range(40)]
    assert all((r.dtype, r.shape) == (np.uint8, image.shape) for r in results)
    assert all(np.array_equal(r, augment(image, rng(seed))) for seed, r in enumerate(results))
    assert all(not np.array_equal(r, s) for r, s in pairwise(results))
    assert np.array_equal(image, before)
    assert not any(np.shares_memory(r, image) for r in results)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, 1, FAMILIES, False), "data.augment.depth"),
        ((4, 1, FAMILIES, False), "data.augment.depth"),
        ((1, 0, FAMILIES, False), "data.augment.copies"),
        ((1, 1, [], False), "data.augment.families"),
        ((1, 1, ["geometry", "geometry"], False), "data.augment.families"),
        ((1, 1, ["weather"], False), "data.augment.families"),
    ],
)
def test_user_errors_name_the_key(arguments, key):
    with pytest.raises(ConfigError, match=f"^{key}:.*give") as caught:
        HierarchicalTransformation(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_poison_grows_with_severity_for_every_image(family):
    for seed in range(25):
        image = photograph(seed)
        weak, middle, strong = (
            change(image, poisoned(image, family, severity, rng(seed))) for severity in (1, 2, 3)
        )
        assert 0.2 < weak < middle < strong


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("severity", [1, 2, 3])
def test_poison_is_one_operation_at_halves_of_its_range(drawn, family, severity):
    image, found = photograph(size=(16, 16)), []
    for seed in range(120):
        poisoned(image, family, severity, rng(seed))
        found.append(drawn.pop())
        assert not drawn
    expected = set()
    for name in OPERATIONS[family]:
        low, high, neutral = RANGES[name][0]
        ends = [low, high] if low < neutral < high else [{"blur": 2, "noise": 0.05, "jpeg": 40}[name]]
        sides = [round(neutral + (end - neutral) * severity / 2, 9) for end in ends]
        expected |= (
            {(name, a, b) for a in sides for b in sides} if name == "shift" else {(name, a) for a in sides}
        )
    assert {(name, *(round(s, 9) for s in strengths)) for name, strengths in found} == expected


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_the_worst_poison_lies_beyond_all_that_training_draws(family, name):
    """And the milder two do not, so that severity tells what was seen from what was not."""
    for low, high, neutral in RANGES[name]:
        strength = next(s for s in OPERATIONS[family][name].strengths if s[:2] == (low, high))
        for side in range(6):
            mild, edge, worst = (strength.worsened(severity, rng(side)) for severity in (1, 2, 3))
            assert min(low, high, neutral) <= mild <= max(low, high, neutral)
            assert edge == pytest.approx(low) or edge == pytest.approx(high)
            assert not low <= worst <= high
            assert abs(worst - neutral) > abs(edge - neutral) > abs(mild - neutral)
    assert OPERATIONS["degradation"]["jpeg"].strengths[0].worsened(3, rng(0)) == pytest.approx(10)


@pytest.mark.parametrize("family", FAMILIES)
def test_poison_is_of_the_generator_alone_and_leaves_its_input(family):
    image = photograph()
    before = image.copy()
    for seed in range(10):
        result = poisoned(image, family, 2, rng(seed))
        assert (result.dtype, result.shape) == (np.uint8, image.shape)
        assert np.array_equal(result, poisoned(image, family, 2, rng(seed)))
    assert np.array_equal(image, before)
