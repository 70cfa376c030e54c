"""Placing against the steps done one by one, resizing against torch and a float64 matrix."""

import numpy as np
import pytest
import torch

from anomaly_lab.data.geometry import Box, Geometry, Placement, resize_image, resize_mask, restore_map
from anomaly_lab.errors import ConfigError

RNG = np.random.default_rng(11)


def triangle(length, new):
    """Return the (new, length) float64 matrix of antialiased linear resizing."""
    scale = length / new
    weights = np.zeros((new, length))
    for i in range(new):
        for j in range(length):
            weights[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * scale) / max(scale, 1.0))
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize(
    ("geometry", "original", "source", "target"),
    [
        (Geometry((256, 256), "stretch", None, None), (700, 900), (0, 0, 700, 900), (0, 0, 256, 256)),
        (Geometry((256, 256), "stretch", 224, None), (1024, 512), (64, 32, 896, 448), (0, 0, 224, 224)),
        (Geometry((256, 256), "pad", None, None), (100, 200), (0, 0, 100, 200), (64, 0, 128, 256)),
        (Geometry((256, 320), "pad", None, None), (400, 300), (0, 0, 400, 300), (0, 64, 256, 192)),
        (Geometry((256, 256), "pad", 192, None), (100, 200), (0, 25, 100, 150), (32, 0, 128, 192)),
        (Geometry((256, 256), "pad", 64, None), (128, 256), (32, 96, 64, 64), (0, 0, 64, 64)),
        (
            Geometry((64, 64), "stretch", None, (0.1, 0.2, 0.5, 0.6)),
            (50, 200),
            (5, 40, 25, 120),
            (0, 0, 64, 64),
        ),
        (Geometry((9, 9), "pad", 3, (0.9, 0.99, 0.1, 0.01)), (1, 1), (0, 0, 1, 1), (0, 0, 3, 3)),
        (Geometry((8, 8), "pad", None, None), (1, 999), (0, 0, 1, 999), (3, 0, 1, 8)),
        (Geometry((8, 8), "stretch", 2, None), (2, 3), (1, 1, 1, 1), (0, 0, 2, 2)),
    ],
)
def test_placements_by_hand(geometry, original, source, target):
    placement = geometry.place(original)
    assert placement == Placement(Box(*source), Box(*target))
    assert all(type(value) is int for box in placement for value in box)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("center_crop", [None, 1, 40, 51])
@pytest.mark.parametrize("crop", [None, (0.13, 0.2, 0.61, 0.8)])
@pytest.mark.parametrize("original", [(61, 97), (200, 133), (64, 64), (333, 51)])
def test_a_placement_is_its_steps_one_after_the_other(fit, center_crop, crop, original):
    """Every pixel holds its own coordinate, in 1/1000 of the original; the steps are done on whole images."""
    size = (64, 57)
    geometry = Geometry(size, fit, center_crop, crop)
    y, x = np.mgrid[: original[0], : original[1]] + 0.5
    image = torch.from_numpy(np.stack([y, x, np.ones(original)]))
    top, left, height, width = crop or (0, 0, 1, 1)
    image = image[:, round(top * original[0]) : round((top + height) * original[0])]
    image = image[:, :, round(left * original[1]) : round((left + width) * original[1])]
    ratio = [size[i] / image.shape[i + 1] for i in (0, 1)]
    ratio = [min(ratio)] * 2 if fit == "pad" else ratio
    image = torch.nn.functional.interpolate(
        image[None],
        [max(1, round(image.shape[i + 1] * ratio[i])) for i in (0, 1)],
        mode="bilinear",
        antialias=True,
    )[0].numpy()
    canvas = np.zeros((3, *size))
    corner = [(size[i] - image.shape[i + 1]) // 2 for i in (0, 1)]
    canvas[:, corner[0] : corner[0] + image.shape[1], corner[1] : corner[1] + image.shape[2]] = image
    if center_crop:
        corner = [(length - center_crop) // 2 for length in size]
        canvas = canvas[:, corner[0] : corner[0] + center_crop, corner[1] : corner[1] + center_crop]
    assert geometry.size == canvas.shape[1:]

    source, target = geometry.place(original)
    inside = np.zeros(geometry.size, bool)
    inside[target.slices] = True
    assert np.array_equal(inside, canvas[2] > 0.5)
    assert 0 <= source.top < source.top + source.height <= original[0]
    assert 0 <= source.left < source.left + source.width <= original[1]
    rows = source.top + (np.arange(target.height) + 0.5) * source.height / target.height
    columns = source.left + (np.arange(target.width) + 0.5) * source.width / target.width
    edge = max(1 / r for r in ratio) / 2 + 1.01  # antialiasing at the end of the image, and whole pixels
    assert np.abs(canvas[0][target.slices] - rows[:, None]).max() <= edge
    assert np.abs(canvas[1][target.slices] - columns).max() <= edge


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (((256, 256), "stretch", 257, None), "data.center_crop"),
        (((300, 256), "pad", 280, None), "data.center_crop"),
        (((256, 256), "pad", 0, None), "data.center_crop"),
        (((0, 256), "pad", None, None), "data.image_size"),
        *(
            (((9, 9), "pad", None, c), "data.crop")
            for c in [(0, 0, 0, 1), (0.5, 0, 0.6, 1), (-0.1, 0, 1, 1), (0, 1)]
        ),
    ],
)
def test_a_geometry_that_cannot_be(arguments, key):
    with pytest.raises(ConfigError, match=key):
        Geometry(*arguments)


@pytest.mark.parametrize("source", [Box(3, 5, 30, 41), Box(0, 0, 37, 50), Box(36, 2, 1, 7)])
@pytest.mark.parametrize("target", [Box(2, 1, 17, 23), Box(0, 0, 64, 80), Box(4, 4, 1, 1), Box(0, 0, 30, 41)])
def test_resized_pixels_are_the_triangle_filter_of_the_source_alone(source, target):
    image, size = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8), (64, 80)
    before = image.copy()
    placed = resize_image(image, Placement(source, target), size)
    assert placed.dtype == np.uint8
    assert placed.shape == (64, 80, 3)
    assert np.array_equal(image, before)
    cut = image[source.top : source.top + source.height, source.left : source.left + source.width]
    rows, columns = triangle(source.height, target.height), triangle(source.width, target.width)
    exact = np.einsum("ih,hwc,jw->ijc", rows, cut.astype(float), columns)
    inside = placed[target.top : target.top + target.height, target.left : target.left + target.width]
    assert np.abs(inside - exact).max() <= 0.5 + 1e-3
    tensor = torch.from_numpy(cut.transpose(2, 0, 1).copy()).float()[None]
    direct = torch.nn.functional.interpolate(
        tensor, (target.height, target.width), mode="bilinear", antialias=True, align_corners=False
    )
    assert np.array_equal(inside, direct[0].round().clamp(0, 255).byte().numpy().transpose(1, 2, 0))
    inside[:] = 0
    assert not placed.any()


def test_a_read_only_image_and_mask_are_resized():
    image, mask = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), RNG.random((8, 8)) > 0.5
    image.setflags(write=False)
    mask.setflags(write=False)
    whole = Placement(Box(0, 0, 8, 8), Box(0, 0, 8, 8))
    assert np.array_equal(resize_image(image, whole, (8, 8)), image)
    assert np.array_equal(resize_mask(mask, whole, (8, 8)), mask)


@pytest.mark.parametrize("source", [Box(3, 5, 30, 41), Box(0, 0, 37, 50), Box(36, 2, 1, 7)])
@pytest.mark.parametrize("target", [Box(2, 1, 17, 23), Box(0, 0, 64, 80), Box(4, 4, 1, 1)])
def test_a_mask_takes_the_nearest_pixel(source, target):
    mask, expected = RNG.random((37, 50)) > 0.5, np.zeros((64, 80), bool)
    for i in range(target.height):
        for j in range(target.width):
            row = source.top + (2 * i + 1) * source.height // (2 * target.height)
            column = source.left + (2 * j + 1) * source.width // (2 * target.width)
            expected[target.top + i, target.left + j] = mask[row, column]
    placed = resize_mask(mask, Placement(source, target), (64, 80))
    assert placed.dtype == bool
    assert np.array_equal(placed, expected)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("original", [(61, 97), (300, 200), (32, 32)])
def test_a_restored_map_lies_on_the_pixels_it_came_from(fit, original):
    """The network's map holds, at each pixel, the coordinate of the original which that pixel shows."""
    source, target = Geometry((96, 80), fit, 64, (0.1, 0.05, 0.8, 0.9)).place(original)
    rows = source.top + (np.arange(64) - target.top + 0.5) * source.height / target.height
    columns = source.left + (np.arange(64) - target.left + 0.5) * source.width / target.width
    for axis, coordinates in enumerate((np.tile(rows[:, None], 64), np.tile(columns, (64, 1)))):
        field = np.full((64, 64), 1e9)
        field[target.slices] = coordinates[target.slices]
        restored = restore_map(field.astype(np.float32), Placement(source, target))
        assert restored.dtype == np.float32
        assert restored.shape == (source.height, source.width)
        truth = np.mgrid[source.slices][axis] + 0.5
        edge = 1 + int(np.ceil(max(source.height / target.height, source.width / target.width)))
        inner = (slice(edge, -edge),) * 2
        assert np.abs(restored - truth)[inner].max() < 0.05
    loop = np.einsum(
        "ih,hw,jw->ij",
        triangle(target.height, source.height),
        field[target.slices],
        triangle(target.width, source.width),
    )
    assert np.abs(restored - loop).max() < 1e-3
