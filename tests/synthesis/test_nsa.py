"""Natural synthetic anomalies: the stated laws, and blending by a solver."""

import math

import cv2
import numpy as np
import pytest
from scipy import stats
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from anomaly_lab.synthesis import nsa
from anomaly_lab.synthesis.nsa import Nsa, poisson_blend
from tests.support.synthesizers import BIG, natural, noise, rng, smooth


def solved(patch: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Solve Poisson's equation but for the two outer rings; the gradients of four rings are the window's."""
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
    # period 8, upright stripes
    wave = np.broadcast_to(128 + 60 * np.sin(np.arange(64) * 2 * np.pi / 8), (64, 64))
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
