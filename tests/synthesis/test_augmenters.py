"""The ten augmenters: each result is what the operation's definition gives for a parameter it may draw."""

import colorsys
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from scipy import ndimage

from anomaly_lab.synthesis.augmenters import AUGMENTERS, BRIGHTNESS_SPACES

RECIPE = Path(__file__).parents[2] / "conf" / "synthesis" / "perlin_texture.yaml"


def rng(seed=0):
    return np.random.default_rng(seed)


def photograph(height=48, width=64):
    """A smooth colourful image, (H, W, 3) uint8."""
    return cv2.resize(rng().integers(0, 256, (6, 8, 3), np.uint8), (width, height))


def outcomes(name, image, count=300):
    return [AUGMENTERS[name](image, rng(seed)) for seed in range(count)]


def ramp_image():
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None], 3, 2)


def test_recipe_has_the_ten_augmenters_of_the_code():
    names = OmegaConf.load(RECIPE).augmenters
    assert len(names) == 10
    assert set(names) == set(AUGMENTERS)
    # its comment says: the text has the first seven
    assert list(names[7:]) == ["gamma_contrast", "invert", "rotate"]


@pytest.mark.parametrize("name", AUGMENTERS)
def test_augmenter_contract(name):
    image = photograph()
    for seed in range(20):
        result = AUGMENTERS[name](image, rng(seed))
        assert result.dtype == np.uint8
        assert result.shape == image.shape
        assert np.array_equal(result, AUGMENTERS[name](image, rng(seed)))
    assert any(not np.array_equal(result, image) for result in outcomes(name, image, 20))


def test_gamma_contrast():
    levels, gammas = np.arange(256) / 255, []
    for result in outcomes("gamma_contrast", ramp_image()):
        for channel in result.reshape(256, 3).T:
            gamma = np.log(channel[100:250] / 255.0).sum() / np.log(levels[100:250]).sum()
            assert np.abs(channel - 255 * levels**gamma).max() < 1.5
            gammas.append(gamma)
    assert 0.49 < min(gammas) < 0.53
    assert 1.95 < max(gammas) < 2.01
    assert np.ptp(np.reshape(gammas, (-1, 3)), 1).min() > 0  # each channel has its own
    assert abs(np.mean(gammas) - 1.25) < 0.05


def brightness_by_formula(image, generator):
    to, back, channel = BRIGHTNESS_SPACES[generator.integers(6)]
    factor, shift, add_last = (
        generator.uniform(0.8, 1.2),
        generator.integers(-30, 31),
        generator.random() < 0.5,
    )
    assert channel == {cv2.COLOR_RGB2HSV: 2, cv2.COLOR_RGB2HLS: 1}.get(to, 0)
    converted = cv2.cvtColor(image, to)
    value = converted[..., channel].astype(float)
    for step in ("times", "plus") if add_last else ("plus", "times"):
        value = np.clip(np.round(value * factor if step == "times" else value + shift), 0, 255)
    converted[..., channel] = value
    return cv2.cvtColor(converted, back)


def test_brightness():
    image = photograph()
    for seed in range(50):
        assert np.array_equal(
            AUGMENTERS["brightness"](image, rng(seed)), brightness_by_formula(image, rng(seed))
        )
    assert len(set(BRIGHTNESS_SPACES)) == 6
    grey = np.full((2, 2, 3), 100, np.uint8)
    results = outcomes("brightness", grey, 1500)
    # grey stays grey, but for the rounding of Lab and Luv
    assert max(np.ptp(result) for result in results) <= 3
    # YCrCb, HSV, HLS and YUV give 100 itself; Lab and Luv a level of about 108 that goes by another curve.
    levels = [result[0, 0, 0] for result in results]
    assert 48 <= min(levels) < 56
    assert 148 < max(levels) <= 158


def test_sharpness():
    image = rng(0).integers(100, 156, (24, 24, 3), np.uint8)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])[..., None] / 13
    smooth = ndimage.convolve(image.astype(float), kernel)[1:-1, 1:-1]
    detail, factors = image[1:-1, 1:-1] - smooth, []
    for result in outcomes("sharpness", image):
        change = result[1:-1, 1:-1] - smooth
        factors.append((change * detail).sum() / (detail**2).sum())
        # the smoothed image and the blend are both rounded
        assert np.abs(change - factors[-1] * detail).max() < 1.6
    assert -0.01 < min(factors) < 0.05
    assert 1.95 < max(factors) < 2.01
    assert abs(np.median(factors) - 1) < 0.2


def test_hue_saturation():
    colours = np.array(
        [[[200, 80, 80], [80, 160, 220], [90, 200, 90], [180, 180, 90], [120, 120, 120]]], np.uint8
    )
    before = np.array([colorsys.rgb_to_hsv(*pixel / 255) for pixel in colours[0]])
    hues, saturations = [], []
    for result in outcomes("hue_saturation", colours):
        after = np.array([colorsys.rgb_to_hsv(*pixel / 255) for pixel in result[0]])
        assert np.abs(after - before)[:, 2].max() < 0.005
        turn = (360 * (after - before)[:4, 0] + 180) % 360 - 180
        assert np.ptp(turn) < 7  # OpenCV's hue has steps of 2 degrees
        change = 255 * (after - before)[:4, 1]
        assert np.ptp(change) < 4
        hues.append(np.mean(turn))
        saturations.append(np.mean(change))
        # grey has no saturation to lose, but some to gain
        assert abs(255 * after[4, 1] - max(0, saturations[-1])) < 4
    assert -72 < min(hues) < -64
    assert 64 < max(hues) < 72
    assert -52 < min(saturations) < -46
    assert 46 < max(saturations) < 52
    assert abs(np.corrcoef(hues, saturations)[0, 1]) < 0.2  # drawn apart


def test_hue_wraps_and_saturation_clips():
    red = np.full((1, 1, 3), (255, 0, 10), np.uint8)
    hues = [colorsys.rgb_to_hsv(*result[0, 0] / 255)[0] for result in outcomes("hue_saturation", red)]
    assert min(hues) < 0.15 < 0.85 < max(hues)


def test_solarise():
    image = ramp_image()
    allowed = {np.asarray(ImageOps.solarize(Image.fromarray(image), t)).tobytes(): t for t in range(33, 129)}
    results = [result.tobytes() for result in outcomes("solarise", image, 2000)]
    unchanged = results.count(image.tobytes())
    assert abs(unchanged / 2000 - 0.5) < 0.05
    thresholds = [allowed[result] for result in results if result != image.tobytes()]
    assert (min(thresholds), max(thresholds)) == (33, 128)
    assert abs(np.mean(thresholds) - 80.5) < 3


def test_posterise_keeps_high_bits():
    allowed = {(ramp_image() // 2 ** (8 - bits) * 2 ** (8 - bits)).tobytes(): bits for bits in range(1, 9)}
    assert {allowed[result.tobytes()] for result in outcomes("posterise", ramp_image())} == set(range(1, 9))


def test_invert():
    image = photograph()
    assert np.array_equal(AUGMENTERS["invert"](image, rng()), 255 - image.astype(int))


def test_autocontrast():
    image = cv2.resize(rng(0).integers(40, 220, (12, 12, 3), np.uint8), (48, 48))
    ordered, allowed = np.sort(image.reshape(-1, 3), 0).astype(float), []
    for cut in range(21):
        low, high = ordered[len(ordered) * cut // 100], ordered[-1 - len(ordered) * cut // 100]
        allowed.append(np.clip(255 * (image - low) / (high - low), 0, 255))
    found = set()
    for result in outcomes("autocontrast", image):
        errors = [np.abs(result - stretched).max() for stretched in allowed]
        assert min(errors) < 1.01  # PIL cuts the decimals off
        found.add(int(np.argmin(errors)))
    assert found == set(range(21))


def test_equalise_is_its_formula():
    image = photograph()
    result = AUGMENTERS["equalise"](image, rng())
    for channel in range(3):
        levels = image[..., channel]
        counts = np.array([(levels == level).sum() for level in range(256)])
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = counts.cumsum() - counts
        assert np.array_equal(result[..., channel], np.minimum((step // 2 + below) // step, 255)[levels])


def test_rotate():
    image = cv2.GaussianBlur(photograph(65, 65), (0, 0), 2)
    y, x = np.mgrid[:65, :65]
    inside = np.hypot(y - 32, x - 32) < 30
    angles = []
    for result, seed in zip(outcomes("rotate", image, 60), range(60), strict=True):
        angles.append(rng(seed).uniform(-45, 45))
        turned = ndimage.rotate(image.astype(float), angles[-1], reshape=False, order=1)
        assert np.abs(result - turned)[inside].max() < 2  # OpenCV's positions have steps of 1/32 pixel
        assert not result[0, 0].any() or abs(angles[-1]) < 3  # zero fill
    assert min(angles) < -40 < 40 < max(angles)
