"""From arrays to pictures: colours, contours, panels beside each other, the bytes of a file."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.pictures.sheets import colour, heated, outline, png, sheet, uint8, write

RNG = np.random.default_rng(0)


def test_a_picture_is_clipped_and_rounded():
    image = torch.tensor([-1.0, 0.0, 0.4999, 0.5001, 1.0, 9.0]).reshape(1, 1, 6).expand(3, 1, 6)
    found = uint8(image)
    assert (found.dtype, found.shape) == (np.uint8, (1, 6, 3))
    assert found[0, :, 1].tolist() == [0, 0, 127, 128, 255, 255]


def test_a_map_is_coloured_between_its_ends():
    values = np.array([[-5.0, 1.0, 2.0, 3.0, 99.0]], np.float32)
    found = colour(values, 1.0, 3.0)
    assert np.array_equal(found[:, 0], found[:, 1])
    assert np.array_equal(found[:, 3], found[:, 4])
    light = found[0].astype(int).sum(1)
    assert light[1] < light[2] < light[3]
    assert found.flags["C_CONTIGUOUS"]
    assert np.array_equal(colour(values * 0, 0.0, 0.0), np.broadcast_to(found[:, :1], (1, 5, 3)))


def test_heat_covers_a_picture_the_more_the_higher_the_map():
    image = np.full((1, 5, 3), 90, np.uint8)
    values = np.array([[-1.0, 0.0, 0.25, 1.0, 7.0]], np.float32)
    before = image.copy()
    found = heated(image, values, 0.0, 1.0)
    assert (found.dtype, found.shape) == (np.uint8, image.shape)
    assert np.array_equal(found[:, :2], image[:, :2])
    for column, level in ((2, 0.25), (3, 1.0), (4, 1.0)):
        hot = np.array([255, 230 * level, 0])  # from red to yellow
        wanted = 90 + 0.85 * level * (hot - 90)
        assert np.abs(found[0, column] - wanted).max() <= 1
    assert np.array_equal(image, before)


def test_an_outline_is_the_rim_of_the_mask_alone():
    image, mask = RNG.integers(0, 200, (20, 30, 3), dtype=np.uint8), np.zeros((20, 30), bool)
    mask[4:12, 6:20] = True
    before = image.copy()
    found = outline(image, mask)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0
    rim = mask & ~inner
    assert (found[rim] == (255, 40, 40)).all()
    assert np.array_equal(found[~rim], image[~rim])
    assert np.array_equal(outline(image, mask & False), image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(("size", "tall", "wide"), [((40, 48), 224, 269), ((300, 100), 300, 100)])
def test_a_sheet_has_its_panels_beside_each_other(size, tall, wide):
    panels = {name: RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for name in ("one", "two")}
    found = sheet("a title", panels)
    assert (found.dtype, found.shape) == (np.uint8, (26 + 22 + tall, 2 * (wide + 6), 3))
    for column, panel in enumerate(panels.values()):
        left = column * (wide + 6) + 3
        shown = cv2.resize(panel, (wide, tall), interpolation=cv2.INTER_NEAREST)
        assert np.array_equal(found[48:, left : left + wide], shown)
    for words in (found[:26], found[26:48, : wide + 6], found[26:48, wide + 6 :]):
        assert words.min() < 100 < 255 == words.max()


def test_letters_that_the_font_lacks_are_question_marks():
    canvas = np.full((20, 100, 3), 255, np.uint8)
    assert np.array_equal(write(canvas.copy(), "größe", 15), write(canvas.copy(), "gr??e", 15))


def test_a_file_has_the_pixels():
    picture = RNG.integers(0, 256, (31, 17, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png(picture))) as found:
        assert found.format == "PNG"
        assert np.array_equal(np.asarray(found), picture)
