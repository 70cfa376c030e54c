"""Placing against the steps done one by one, resizing against torch and a float64 matrix."""

import cv2
import numpy as np
import pytest
import torch

from anomaly_lab.data.geometry import (
    Box,
    Geometry,
    Placement,
    lost_of,
    resize_image,
    resize_mask,
    restore_map,
)
from anomaly_lab.errors import ConfigError

RNG = np.random.default_rng(11)
SOURCES = [Box(3, 5, 30, 41), Box(0, 0, 37, 50), Box(36, 2, 1, 7)]
TARGETS = [Box(2, 1, 17, 23), Box(0, 0, 64, 80), Box(4, 4, 1, 1)]


def network(size, fit="stretch", resize="antialias"):
    """Return the geometry of an image of this size, for placements made by hand."""
    return Geometry(size, fit, None, None, resize)


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
        (
            Geometry((256, 256), "stretch", None, None, "antialias"),
            (700, 900),
            (0, 0, 700, 900),
            (0, 0, 256, 256),
        ),
        (
            Geometry((256, 256), "stretch", 224, None, "antialias"),
            (1024, 512),
            (64, 32, 896, 448),
            (0, 0, 224, 224),
        ),
        (
            Geometry((256, 256), "pad", None, None, "antialias"),
            (100, 200),
            (0, 0, 100, 200),
            (64, 0, 128, 256),
        ),
        (
            Geometry((256, 320), "pad", None, None, "antialias"),
            (400, 300),
            (0, 0, 400, 300),
            (0, 64, 256, 192),
        ),
        (
            Geometry((256, 256), "pad", 192, None, "antialias"),
            (100, 200),
            (0, 25, 100, 150),
            (32, 0, 128, 192),
        ),
        (Geometry((256, 256), "pad", 64, None, "antialias"), (128, 256), (32, 96, 64, 64), (0, 0, 64, 64)),
        (
            Geometry((64, 64), "stretch", None, (0.1, 0.2, 0.5, 0.6), "antialias"),
            (50, 200),
            (5, 40, 25, 120),
            (0, 0, 64, 64),
        ),
        (Geometry((9, 9), "pad", 3, (0.9, 0.99, 0.1, 0.01), "antialias"), (1, 1), (0, 0, 1, 1), (0, 0, 3, 3)),
        (Geometry((8, 8), "pad", None, None, "antialias"), (1, 999), (0, 0, 1, 999), (3, 0, 1, 8)),
        (Geometry((8, 8), "stretch", 2, None, "antialias"), (2, 3), (1, 1, 1, 1), (0, 0, 2, 2)),
    ],
)
def test_placements_by_hand(geometry, original, source, target):
    placement = geometry.place(original)
    assert placement == Placement(Box(*source), Box(*target))
    assert all(type(value) is int for box in placement for value in box)


@pytest.mark.parametrize("fit", ["stretch", "pad", "pad_background"])
@pytest.mark.parametrize("center_crop", [None, 1, 40, 51])
@pytest.mark.parametrize("crop", [None, (0.13, 0.2, 0.61, 0.8)])
@pytest.mark.parametrize("original", [(61, 97), (200, 133), (64, 64), (333, 51)])
def test_a_placement_is_its_steps_one_after_the_other(fit, center_crop, crop, original):
    """Every pixel holds its own coordinate, in 1/1000 of the original; the steps are done on whole images."""
    size = (64, 57)
    geometry = Geometry(size, fit, center_crop, crop, "antialias")
    y, x = np.mgrid[: original[0], : original[1]] + 0.5
    image = torch.from_numpy(np.stack([y, x, np.ones(original)]))
    top, left, height, width = crop or (0, 0, 1, 1)
    image = image[:, round(top * original[0]) : round((top + height) * original[0])]
    image = image[:, :, round(left * original[1]) : round((left + width) * original[1])]
    ratio = [size[i] / image.shape[i + 1] for i in (0, 1)]
    ratio = ratio if fit == "stretch" else [min(ratio)] * 2
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
        Geometry(*arguments, "antialias")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", [*TARGETS, Box(0, 0, 30, 41)])
def test_resized_pixels_are_the_triangle_filter_of_the_source_alone(source, target):
    image, size = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8), (64, 80)
    before = image.copy()
    placed = resize_image(image, Placement(source, target), network(size))
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


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", [*TARGETS, Box(5, 5, 37, 50)])
def test_opencv_is_cv2_to_the_grey_level_inside_a_placement(source, target):
    image, size = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8), (64, 80)
    image.setflags(write=False)
    placed = resize_image(image, Placement(source, target), network(size, resize="opencv"))
    expected = np.zeros((*size, 3), np.uint8)
    cut = np.ascontiguousarray(image[source.slices])
    expected[target.slices] = cv2.resize(cut, (target.width, target.height), interpolation=cv2.INTER_LINEAR)
    assert placed.dtype == np.uint8
    assert np.array_equal(placed, expected)


def test_opencv_keeps_the_noise_that_antialiasing_takes():
    """White noise at a quarter of its size: the mean of four pixels has half, of the triangle far less."""
    noise = np.clip(RNG.normal(128, 30, (512, 512, 3)), 0, 255).astype(np.uint8)
    geometry = network((128, 128), resize="opencv")
    placement = geometry.place((512, 512))
    assert abs(resize_image(noise, placement, geometry).std() - 15) < 0.5
    weights = triangle(512, 128)
    left = 30 * np.sqrt(np.square(weights[64]).sum()) ** 2
    assert left < 6
    assert abs(resize_image(noise, placement, network((128, 128))).std() - left) < 0.5


def test_padding_has_the_colour_of_the_border():
    """A wide photograph on a table of one colour, with a red mote on its border; black is as it was."""
    image = np.full((64, 128, 3), (40, 90, 140), np.uint8)
    image[20:44, 40:90] = RNG.integers(150, 256, (24, 50, 3))
    image[:5, :5] = (255, 0, 0)
    for fit, colour in (("pad_background", (40, 90, 140)), ("pad", (0, 0, 0))):
        geometry = network((64, 64), fit)
        placement = geometry.place((64, 128))
        assert placement.target == (16, 0, 32, 64)
        placed = resize_image(image, placement, geometry)
        assert (placed[:16] == colour).all()
        assert (placed[48:] == colour).all()
        alone = resize_image(image, Placement(placement.source, Box(0, 0, 32, 64)), network((32, 64)))
        assert np.array_equal(placed[16:48], alone)


def test_a_read_only_image_and_mask_are_resized():
    image, mask = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), RNG.random((8, 8)) > 0.5
    image.setflags(write=False)
    mask.setflags(write=False)
    whole = Placement(Box(0, 0, 8, 8), Box(0, 0, 8, 8))
    assert np.array_equal(resize_image(image, whole, network((8, 8))), image)
    assert np.array_equal(resize_mask(mask, whole, (8, 8)), mask)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
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


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_floored_mask_is_that_of_draems_test_script(source, target):
    """As VitjanZ/DRAEM: cv2.resize of the grey file, / 255, and .astype(np.uint8) before AUROC and AP."""
    mask = cv2.blur(RNG.random((37, 50)), (9, 9)) > 0.5
    expected = np.zeros((64, 80), bool)
    file = np.ascontiguousarray(mask[source.slices]).astype(np.uint8) * 255
    loaded = cv2.resize(file, dsize=(target.width, target.height)) / 255.0
    for i in range(target.height):
        for j in range(target.width):
            expected[target.top + i, target.left + j] = int(loaded[i, j])
    placed = resize_mask(mask, Placement(source, target), (64, 80), "floor")
    assert placed.dtype == bool
    assert np.array_equal(placed, expected)


def test_a_floored_mask_loses_its_border_alone():
    """Of a square of 15 pixels, at half the size, the cells that it fills are left, by the centres more."""
    mask = np.zeros((64, 64), bool)
    mask[10:25, 10:25] = True
    halved = Placement(Box(0, 0, 64, 64), Box(0, 0, 32, 32))
    floored = resize_mask(mask, halved, (32, 32), "floor")
    assert floored[5:12, 5:12].all()
    assert floored.sum() == 49
    assert resize_mask(mask, halved, (32, 32)).sum() >= 49


def test_what_a_mask_loses_is_counted():
    """Columns 0 to 9 are cropped away; at a quarter of the size single pixels off the centres have none."""
    mask = np.zeros((80, 90), bool)
    placement = Placement(Box(0, 10, 80, 80), Box(4, 4, 20, 20))
    assert lost_of(mask, placement) == (0, 0, 0)
    mask[20:30, 5:15] = True  # half of it cropped
    mask[60, 50] = mask[61, 51] = True  # one region by the corner, of which the second has a pixel or none
    mask[60, 80] = True
    loss = lost_of(mask, placement)
    regions = [mask & False for _ in range(3)]
    regions[0][20:30, 10:15] = True
    regions[1][60:62, 50:52] = mask[60:62, 50:52]
    regions[2][60, 80] = True
    gone = sum(not resize_mask(region, placement, (30, 30)).any() for region in regions)
    assert gone >= 1
    assert loss == (50 / 103, 3, gone)
    outside = np.zeros((80, 90), bool)
    outside[5, 5] = True
    assert lost_of(outside, placement) == (1.0, 0, 0)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("original", [(61, 97), (300, 200), (32, 32)])
def test_a_restored_map_lies_on_the_pixels_it_came_from(fit, original):
    """The network's map holds, at each pixel, the coordinate of the original which that pixel shows."""
    source, target = Geometry((96, 80), fit, 64, (0.1, 0.05, 0.8, 0.9), "antialias").place(original)
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
