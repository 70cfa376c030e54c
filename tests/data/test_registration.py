"""Registration against motions that a part was drawn with: a formula of the plane; nothing is resampled."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from anomaly_lab.data.registration import register, warped, warped_mask

SIZE = (128, 128)
REST = np.eye(2, 3)


def motion(degrees: float, shift: tuple[float, float], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Turn about the image's centre, shift by (x, y) pixels; takes the reference's pixels to the image's."""
    angle, centre = np.radians(degrees), (np.array(size[::-1]) - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, centre + shift - turn @ centre])


def plane(matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of the moved image lies on the part, in 1/64 of the image's shorter side."""
    y, x = np.mgrid[: size[0], : size[1]]
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    points = (
        inverse @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]) - (np.array(size[::-1])[:, None] - 1) / 2
    )
    u, v = points * 64 / min(size)
    return u.reshape(size), v.reshape(size)


def drawn(
    matrix: np.ndarray = REST, seed: int = 0, size: tuple[int, int] = SIZE, defect: float = 0
) -> np.ndarray:
    """Draw an L with a hole and a wavy surface on grey, with noise; ``defect`` is a bright disc's radius."""
    u, v = plane(matrix, size)
    bars = [np.minimum.reduce([u + 14, right - u, v - top, 14 - v]) for right, top in ((-4, -16), (12, 5))]
    inside = np.minimum(np.maximum(*bars), np.hypot(u - 6, v - 9) - 2)
    edge = 1 / (1 + np.exp(-3 * inside))  # half a pixel wide
    surface = 150 + 30 * np.sin(0.7 * u) + 20 * np.sin(v + 0.2 * u)
    grey = np.where(np.hypot(u + 9, v + 2) < defect, 250, 60 + edge * (surface - 60))
    noise = np.random.default_rng(seed).normal(0, 4, (*size, 3))
    return np.clip(grey[..., None] * [1, 0.9, 0.8] + noise, 0, 255).astype(np.uint8)


def corners_off(found: np.ndarray, true: np.ndarray, size: tuple[int, int] = SIZE) -> float:
    """Return by how many pixels the worst corner of the image is misplaced."""
    corners = np.array([[x, y, 1] for x in (0, size[1] - 1) for y in (0, size[0] - 1)]).T
    return float(np.linalg.norm((found - true) @ corners, axis=0).max())


def degrees_off(found: np.ndarray, true: np.ndarray) -> float:
    """Return the angle between the two rotations."""
    between = found[:, :2] @ true[:, :2].T
    return abs(float(np.degrees(np.arctan2(between[1, 0], between[0, 0]))))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (12.4, -7.7), (-30.0, 30.0), (0.0, 42.0)])
@pytest.mark.parametrize("angle", [0, 5, 47, 90, 133, 180, 237, 270, 355])
def test_rotation_and_shift_are_found(angle, shift):
    true = motion(angle, shift)
    found = register(drawn(true, 1), drawn())
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    assert np.allclose(found[:, :2] @ found[:, :2].T, np.eye(2), atol=1e-5)
    assert np.linalg.det(found[:, :2]) > 0
    assert degrees_off(found, true) < 0.2
    assert corners_off(found, true) < 0.4


@pytest.mark.parametrize("size", [(40, 48), (100, 70), (150, 260), (301, 410)])
def test_any_size_and_form_of_image(size):
    for angle in (-20, 160):
        true = motion(angle, (size[1] / 9, -size[0] / 7), size)
        found = register(drawn(true, 1, size), drawn(size=size))
        assert degrees_off(found, true) < 0.2
        assert corners_off(found, true, size) < 0.003 * sum(size)


@pytest.mark.parametrize("angle", [12, 90, 180, 237])
def test_a_defect_and_the_light_do_not_spoil_it(angle):
    true = motion(angle, (10, -14))
    spoiled = drawn(true, 1, defect=2.5)
    assert (spoiled.min(axis=2) > 185).sum() > 50
    dark = (0.7 * spoiled + 20).astype(np.uint8)
    for image in (spoiled, dark):
        found = register(image, drawn())
        assert degrees_off(found, true) < 0.5
        assert corners_off(found, true) < 1


def test_the_moved_image_lies_on_the_reference_and_the_mask_goes_along():
    true, reference = motion(110, (8, 5)), drawn()
    image = drawn(true, 1, defect=3)
    u, v = plane(true, SIZE)
    matrix = register(image, reference)
    moved, mask = warped(image, matrix), warped_mask(np.hypot(u + 9, v + 2) < 3, matrix)
    assert moved.dtype == np.uint8
    assert mask.dtype == bool
    here, there = plane(REST, SIZE)
    disc = np.hypot(here + 9, there + 2)
    assert mask[disc < 2.5].all()
    assert not mask[disc > 3.5].any()
    difference = np.abs(moved.astype(int) - reference).mean(axis=2)
    assert difference[mask].mean() > 50
    assert difference[disc > 4].mean() < 6  # twice the noise, and the edges
    assert np.abs(image.astype(int) - reference)[disc > 4].mean() > 15


def test_moving_is_scipys_and_of_masks_the_nearest_pixels():
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.uniform(0, 255, (50, 70, 3)), (2, 2, 0)).astype(np.uint8)
    mask = ndimage.gaussian_filter(rng.normal(size=(50, 70)), 4) > 0
    mask[:3] = mask[-3:] = mask[:, -3:] = True
    matrix = motion(33, (6, -9), (50, 70))
    swapped, offset = matrix[::-1, 1::-1], matrix[::-1, 2]  # scipy's rows come first
    planes = [
        ndimage.affine_transform(image[..., c].astype(float), swapped, offset, order=1, mode="nearest")
        for c in range(3)
    ]
    # OpenCV rounds positions to 1/32
    assert np.abs(warped(image, matrix) - np.stack(planes, axis=2)).max() < 2
    moved, compared = warped_mask(mask, matrix), 0
    for y, x in np.ndindex(mask.shape):
        column, row = matrix @ (x, y, 1)
        if min(abs(column % 1 - 0.5), abs(row % 1 - 0.5)) > 1 / 16:
            nearest = (round(row), round(column))
            inside = 0 <= nearest[0] < 50 and 0 <= nearest[1] < 70
            assert moved[y, x] == (inside and mask[nearest])
            compared += 1
    assert compared > 2000
    assert np.array_equal(warped(image, REST), image)
    assert np.array_equal(warped_mask(mask, REST), mask)


@pytest.mark.parametrize("angle", [0, 90, 180, 270, 31])
def test_a_small_mark_tells_the_turns_of_a_square_plate(angle):
    def plate(matrix: np.ndarray, seed: int) -> np.ndarray:
        u, v = plane(matrix, SIZE)
        grey = np.where(np.maximum(abs(u), abs(v)) < 18, 160, 60) - 60 * (np.hypot(u - 9, v + 4) < 4)
        noise = np.random.default_rng(seed).normal(0, 4, (*SIZE, 3))
        return np.clip(ndimage.gaussian_filter(grey, 0.7, output=float)[..., None] + noise, 0, 255).astype(
            np.uint8
        )

    for shift in ((0, 0), (7.3, -11.6), (-20, 3), (13, 13)):
        true = motion(angle, shift)
        assert corners_off(register(plate(true, 1), plate(REST, 2)), true) < 1


def test_what_cannot_be_registered_stays_as_it_is():
    constant = np.full((*SIZE, 3), 90, np.uint8)
    for image, reference in ((constant, drawn()), (drawn(), constant), (constant, constant)):
        assert np.array_equal(register(image, reference), REST)


def test_the_result_is_never_worse_than_no_motion():
    reference, moved = drawn().mean(axis=2), 0
    for seed in range(12):
        noise = np.random.default_rng(seed).uniform(0, 255, (*SIZE, 3))
        image = ndimage.gaussian_filter(noise, (3 * (seed % 4), 3 * (seed % 4), 0)).astype(np.uint8)
        matrix = register(image, drawn())
        before, after = (
            np.corrcoef(i.mean(axis=2).ravel(), reference.ravel())[0, 1]
            for i in (image, warped(image, matrix))
        )
        assert np.array_equal(matrix, REST) or after > before - 0.01  # of the rounding to uint8
        moved += not np.array_equal(matrix, REST)
    assert moved > 0


def test_a_motion_that_fits_the_coarse_image_alone_is_dropped():
    # what lies at rest, and is lost in the search
    grain = np.random.default_rng(5).normal(0, 30, (256, 256, 1))
    image, reference = (
        ndimage.gaussian_filter(drawn(m, 1, (256, 256)), (2, 2, 0)) for m in (motion(90, (9, 4)), REST)
    )
    matrices = [
        register(
            *(
                np.clip(0.5 * part + 60 + scale * grain, 0, 255).astype(np.uint8)
                for part in (image, reference)
            )
        )
        for scale in (0, 1)
    ]
    assert degrees_off(matrices[0], motion(90, (9, 4))) < 0.5
    assert np.array_equal(matrices[1], REST)


def test_a_part_in_place_hardly_moves():
    assert corners_off(register(drawn(seed=1), drawn()), REST) < 0.1
    assert corners_off(register(drawn(), drawn()), REST) < 1e-3


def test_threads_change_nothing_and_no_input_is_altered():
    reference = drawn()
    images = [drawn(motion(40 * i, (i, -i)), i + 1) for i in range(8)]
    before = [image.copy() for image in (reference, *images)]
    alone = [register(image, reference) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: register(image, reference), images))
    assert np.array_equal(alone, together)
    for old, new in zip(before, (reference, *images), strict=True):
        assert np.array_equal(old, new)
