"""CutPaste and natural synthetic anomalies: exact masks at any size, the stated laws, geometry by loops and solvers."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis import nsa
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.cutpaste import CutPaste, turned
from anomaly_lab.synthesis.nsa import Nsa, poisson_blend

CONF = Path(__file__).parents[1] / "conf" / "synthesis"
SIZES = [(17, 33), (1, 40), (40, 1), (1, 1), (8, 9), (9, 9), (64, 256), (61, 47)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cutpaste(**changes: object) -> CutPaste:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "cutpaste.yaml"))
    del values["_target_"]
    return CutPaste(**{**values, "probability": 1.0, **changes})


def natural(normals: np.ndarray | None = None, **changes: object) -> Nsa:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "nsa.yaml"))
    del values["_target_"]
    synthesizer = Nsa(**{**values, **changes})
    if normals is not None:
        synthesizer.setup(list(normals))
    return synthesizer


def noise(size: tuple[int, int], count: int = 1) -> np.ndarray:
    images = rng(7).integers(0, 256, (count, *size, 3)).astype(np.uint8)
    images.flags.writeable = False
    return images


def smooth(size: tuple[int, int], count: int = 1) -> np.ndarray:
    images = [cv2.resize(rng(k).integers(60, 190, (5, 6, 3)).astype(np.uint8), size[::-1]) for k in range(count)]
    return np.stack(images)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height, width of what is True."""
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


# The contract


KINDS = {
    "normal": lambda normals: cutpaste(variant="normal"),
    "scar": lambda normals: cutpaste(variant="scar"),
    "union": lambda normals: cutpaste(),
    "nsa": natural,
    "mixed": lambda normals: natural(normals, clone="mixed", median=1),
    "background": lambda normals: natural(normals, background=[200, 60], min_object=0.7),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_what_changed(kind, size):
    plain, changed = np.stack([np.full((*size, 3), level, np.uint8) for level in (255, 0, 90)]), 0
    for images in (noise(size, 3), smooth(size, 3), plain):
        before, synthesizer = images.copy(), KINDS[kind](images)
        for seed in range(12):
            clean = images[seed % 3]
            image, mask = synthesizer(clean, rng(seed))
            assert (image.dtype, image.shape, mask.dtype) == (np.uint8, clean.shape, bool)
            assert np.array_equal(mask, (image != clean).any(2))
            again = synthesizer(clean, rng(seed))
            assert np.array_equal(image, again[0])
            changed += mask.any()
        assert np.array_equal(images, before)
    assert changed > 5 or min(size) < 40 or kind == "background"


BIG = {"half_height": [0.15, 0.4], "half_width": [0.15, 0.4]}  # below 9 pixels a side there is no patch


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_clean_images(share):
    image = noise((64, 64))[0]
    for synthesizer in (cutpaste(probability=share, variant="normal"), natural(image[None], probability=share, **BIG)):
        spoiled = np.mean([synthesizer(image, rng(seed))[1].any() for seed in range(300)])
        assert abs(spoiled - share) <= 3 * math.sqrt(share * (1 - share) / 300)


# CutPaste


@pytest.mark.parametrize("size", [(256, 256), (128, 512)])
def test_rectangles_follow_the_laws(size):
    synthesizer, image = cutpaste(variant="normal", jitter=0.0), noise(size)[0]
    boxes = [box(synthesizer(image, rng(seed))[1]) for seed in range(250)]
    top, left, height, width = np.array(boxes).T / np.array([[size[0]], [size[1]], [size[0]], [size[1]]])
    assert stats.kstest(height * width, stats.uniform(0.02, 0.13).cdf).pvalue > 1e-3
    assert stats.kstest(np.log(width / height), stats.uniform(math.log(0.3), -2 * math.log(0.3)).cdf).pvalue > 1e-3
    for start, side in ((top, height), (left, width)):
        assert stats.kstest(start / (1 - side), "uniform").pvalue > 1e-3


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
    for seed, (height, width, degrees) in enumerate([(5, 3, 30.0), (12, 4, -45.0), (7, 7, 44.0), (25, 2, -10.0)]):
        patch = rng(seed).integers(1, 256, (height, width, 3)).astype(np.uint8)
        image, inside = turned(patch, degrees)
        a = math.radians(degrees)
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                offset = (x - (inside.shape[1] - 1) / 2) + 1j * -(y - (inside.shape[0] - 1) / 2)  # y points up
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


# NSA


def solved(patch: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Solve Poisson's equation for all but the two outermost rings; the gradients of four rings are the window's."""
    height, width = window.shape[:2]
    own, other = window.astype(float), patch.astype(float)
    inner = np.zeros((height, width, 1))
    inner[4:-4, 4:-4] = 1
    across = inner * np.diff(other, axis=1, append=0) + (1 - inner) * np.diff(own, axis=1, append=0)
    down = inner * np.diff(other, axis=0, append=0) + (1 - inner) * np.diff(own, axis=0, append=0)
    unknown = [(y, x) for y in range(2, height - 2) for x in range(2, width - 2)]
    number = {place: k for k, place in enumerate(unknown)}
    matrix, right = lil_matrix((len(unknown), len(unknown))), np.zeros((len(unknown), 3))
    for k, (y, x) in enumerate(unknown):
        matrix[k, k] = 4
        right[k] = across[y, x - 1] - across[y, x] + down[y - 1, x] - down[y, x]
        for place in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            if place in number:
                matrix[k, number[place]] = -1
            else:
                right[k] += own[place]
    own[2:-2, 2:-2] = spsolve(matrix.tocsr(), right).reshape(height - 4, width - 4, 3)
    return np.clip(own, 0, 255)


@pytest.mark.parametrize("size", [(9, 9), (10, 31), (23, 24), (24, 12), (33, 20)], ids=str)
def test_blending_is_poissons_equation_and_shifts_nothing(size):
    window, patch = smooth(size, 2)
    blended = poisson_blend(patch, window, cv2.NORMAL_CLONE)
    assert np.abs(blended.astype(float) - solved(patch, window)).max() <= 1.5
    assert min(size) < 12 or np.abs(blended.astype(int) - window).max() > 5


@pytest.mark.parametrize("clone", [cv2.NORMAL_CLONE, cv2.MIXED_CLONE])
def test_blending_takes_every_size_from_the_smallest(clone):
    for height in range(nsa.SMALLEST, 25):
        for width in (9, 10, 11, 16, 25):
            patch, window = noise((height, width), 2)
            blended = poisson_blend(patch, window, clone)
            rings = np.ones((height, width), bool)
            rings[2:-2, 2:-2] = False
            assert np.array_equal(blended[rings], window[rings])
            assert (blended != window)[4:-4, 4:-4].any()


def test_patches_reach_all_corners_and_stay_inside():
    images = smooth((48, 64), 3)
    synthesizer = natural(images, **BIG)
    touched = sum(synthesizer(images[seed % 3], rng(seed))[1].astype(int) for seed in range(500))
    corners = touched[:6, :6], touched[:6, -6:], touched[-6:, :6], touched[-6:, -6:]
    assert min(corner.sum() for corner in corners) > 0
    ring = np.ones((48, 64), bool)
    ring[2:-2, 2:-2] = False
    assert touched[ring].sum() == 0


def test_sides_follow_the_gamma_law(monkeypatch):
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(nsa, "resized", lambda shape, factor, low, high: seen.append(shape) or (9, 9))
    synthesizer, draw = natural(noise((256, 300)), num_patches=1), rng(99)
    for seed in range(400):
        synthesizer(noise((256, 300))[0], rng(seed))
    for axis, side in enumerate((256, 300)):
        low, high = np.rint([0.03 * side, 0.4 * side])
        half = np.floor(
            np.clip((0.03 + stats.gamma.rvs(2, scale=0.05, size=4000, random_state=draw)) * side, low, high)
        )
        centre = draw.integers(low, side - low, 4000)
        expected = np.minimum(centre + half, side) - np.maximum(centre - half, 0)
        assert stats.ks_2samp([shape[axis] for shape in seen], expected).pvalue > 1e-3


def test_resizing_keeps_the_aspect_within_bounds():
    low, high = np.array([8, 8]), np.array([102, 102])
    assert nsa.resized((40, 60), 1.3, low, high) == (78, 52)  # width, height
    assert nsa.resized((40, 60), 0.7, low, high) == (42, 28)
    assert nsa.resized((100, 50), 1.3, low, high) == (51, 102)
    assert nsa.resized((20, 150), 1.0, low, high) == (102, 13)  # too wide: both shrink


def test_patches_show_the_part_and_lie_on_it():
    part = np.zeros((64, 64), bool)
    part[16:48, 20:52] = True
    images = np.where(part[..., None], smooth((64, 64), 4) // 2 + 120, 20).astype(np.uint8)
    synthesizer = natural(images, background=[20, 20], num_patches=1, **BIG)
    away = cv2.dilate(part.view(np.uint8), np.ones((5, 5))) > 0
    masks = [synthesizer(images[seed % 4], rng(seed))[1] for seed in range(100)]
    assert sum(mask.any() for mask in masks) > 90
    assert all(away[mask].any() for mask in masks if mask.any())
    everywhere = natural(images, num_patches=1, **BIG)
    free = [everywhere(images[seed % 4], rng(seed))[1] for seed in range(100)]
    assert not all(away[mask].any() for mask in free if mask.any())
    empty = np.full((64, 64, 3), 20, np.uint8)
    assert not synthesizer(empty, rng())[1].any()


def test_more_patches_with_a_half_chance_each(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(Nsa, "_cut", lambda *_: calls.append(1))
    synthesizer, image = natural(noise((32, 32)), num_patches=4), noise((32, 32))[0]
    for seed in range(400):
        synthesizer(image, rng(seed))
    assert abs(len(calls) / 400 - 2.5) < 3 * math.sqrt(0.75 / 400)


def test_the_patches_show_the_other_images():
    wave = np.broadcast_to(128 + 60 * np.sin(np.arange(64) * 2 * np.pi / 8), (64, 64))  # period 8, upright stripes
    images = np.stack([np.full((64, 64), 100), wave, wave.T])[..., None].repeat(3, 3).astype(np.uint8)
    synthesizer, seen = natural(images, num_patches=1, resize_deviation=0.0, **BIG), np.zeros(3)
    for seed in range(240):
        image, mask = synthesizer(images[0], rng(seed))  # a plain image: whatever shows in it is foreign
        if not mask.any():
            seen[0] += 1  # its own patch
            continue
        across, down = (np.abs(np.diff(image.astype(int), axis=axis)).sum() for axis in (1, 0))
        assert max(across, down) > 1.5 * min(across, down)
        seen[1 if across > down else 2] += 1
    assert stats.chisquare(seen).pvalue > 1e-3  # each training image as often as any other


@pytest.mark.parametrize("tolerance", [0.0, 20.0])
def test_what_changed_less_than_the_tolerance_is_put_back(tolerance):
    images = smooth((64, 64), 3)
    synthesizer, changes = natural(images, tolerance=tolerance, median=1, **BIG), list[np.ndarray]()
    for seed in range(30):
        image, mask = synthesizer(images[seed % 3], rng(seed))
        changes.append(np.abs(image.astype(float) - images[seed % 3]).mean(2)[mask])
    assert tolerance < np.concatenate(changes).min() < tolerance + 1


def test_normals_are_shared_and_one_is_enough():
    images = noise((48, 64), 5)
    synthesizer = natural(images)
    assert all(np.shares_memory(kept, image) for kept, image in zip(synthesizer.normals, images, strict=True))
    alone = natural(images[:1], **BIG)
    assert sum(alone(images[0], rng(seed))[1].any() for seed in range(20)) > 15


@pytest.mark.parametrize(
    ("make", "changes", "key"),
    [
        (cutpaste, {"probability": 1.5}, "probability"),
        (cutpaste, {"area": [0.2, 0.1]}, "area"),
        (cutpaste, {"area": [0.02, 0.4]}, "aspect"),
        (cutpaste, {"aspect": 3.0}, "aspect"),
        (cutpaste, {"scar_width": [0, 4]}, "scar_width"),
        (cutpaste, {"rotation": [45, -45]}, "rotation"),
        (cutpaste, {"jitter": 0.7}, "jitter"),
        (natural, {"num_patches": 0}, "num_patches"),
        (natural, {"half_width": [0.03, 0.6]}, "half_width"),
        (natural, {"resize": [1.3, 0.7]}, "resize"),
        (natural, {"background": [20]}, "background"),
        (natural, {"min_object": 1.0}, "min_object"),
        (natural, {"median": 4}, "median"),
    ],
)
def test_misfit_is_named(make, changes, key):
    with pytest.raises(ConfigError, match=rf"^synthesis\.{key}: .*give"):
        make(**changes)


def test_sources_are_named():
    assert isinstance(cutpaste(), Synthesizer)
    assert (cutpaste().source, natural().source) == ("the image itself", "the training images")
