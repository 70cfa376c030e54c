"""The part's box: holds all that the training images show beside their background, or is the frame."""

import re
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly_lab.data import part_box
from anomaly_lab.data.geometry import Geometry
from anomaly_lab.data.images import ALONE
from anomaly_lab.data.part_box import FRAME, MARGIN, find_part

GROUND = (90.0, 120.0, 100.0)
EDGE = 5 / 256  # of the frame: so far the blur, and a cell of the grid, move an edge


def chips(box, size=(200, 240), count=6, light=60, noise=6):
    """Textured rectangles, each with a hole of the background's colour, on a plain noisy ground with dust."""
    top, left, height, width = box
    for index in range(count):
        rng = np.random.default_rng((index, *box))
        image = np.full((*size, 3), GROUND)
        image[top : top + height, left : left + width] += light + 20 * np.sin(np.arange(width) / 3)[:, None]
        hole = slice(top + height // 3, top + height // 2), slice(left + width // 3, left + width // 2)
        image[hole] = GROUND
        image[tuple(rng.integers(0, size))] = 255
        yield np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def named(images):
    return [(f"{row}.png", image) for row, image in enumerate(images)]


def edges(found, size=(200, 240)):
    """Return top, left, bottom, right in pixels."""
    top, left, height, width = np.multiply(found.box, [*size, *size])
    return np.array([top, left, top + height, left + width])


@pytest.mark.parametrize("light", [60, -60])
@pytest.mark.parametrize("box", [(60, 70, 80, 90), (30, 100, 120, 60), (90, 20, 40, 180), (50, 3, 100, 100)])
def test_the_part_is_found_and_boxed_by_a_square_in_the_image(box, light):
    found = find_part(named(chips(box, light=light)))
    top, left, bottom, right = edges(found)
    assert top <= box[0]
    assert left <= box[1]
    assert bottom >= box[0] + box[2]
    assert right >= box[1] + box[3]
    side = (1 + 2 * MARGIN) * max(box[2:])
    slack = 2 * (1 + 2 * MARGIN) * EDGE * 240
    assert min(side, 200) <= bottom - top <= min(side + slack, 200)
    assert min(side, 240) <= right - left <= min(side + slack, 240)
    Geometry((64, 64), "stretch", None, found.box, "antialias")
    assert found.said.endswith("holds the part on 6 training images")


def test_the_box_holds_the_part_wherever_it_lay():
    """Of forty images one has its part beside all others; the mean picture hardly shows it."""
    images = [*chips((60, 70, 80, 90), count=39), *chips((100, 110, 80, 90), count=1)]
    top, left, bottom, right = edges(find_part(named(images)))
    assert top <= 60
    assert left <= 70
    assert bottom >= 180
    assert right >= 200


def test_a_highlight_is_not_taken_for_the_part():
    """A dark tyre before a dark ground: its body differs by 14 grey levels, the highlight on it by 150."""
    rng = np.random.default_rng(2)
    images = []
    for _ in range(8):
        image = np.full((256, 256, 3), (20.0, 24.0, 30.0))
        image[60:200, 50:210] -= 14
        image[120:136, 110:170] = 170
        images.append(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    top, left, bottom, right = edges(find_part(named(images)), (256, 256))
    assert top <= 60
    assert left <= 50
    assert bottom >= 200
    assert right >= 210
    assert bottom - top < 200


def test_light_that_falls_off_is_background():
    y, x = np.mgrid[-1:1:200j, -1:1:240j]
    light = (1 - 0.25 * (x**2 + y**2) + 0.1 * x)[..., None]
    images = [np.clip(image * light, 0, 255).astype(np.uint8) for image in chips((60, 70, 80, 90))]
    top, left, bottom, right = edges(find_part(named(images)))
    assert 40 <= top <= 60
    assert 50 <= left <= 70
    assert 140 <= bottom <= 165
    assert 160 <= right <= 185


def test_a_shadow_in_a_few_images_is_no_part_but_one_in_many_is_kept():
    images = list(chips((60, 70, 80, 90), count=40))
    for image in images[:1]:
        image[:40, :40] //= 2
    assert edges(find_part(named(images)))[1] > 45
    for image in images[1:4]:
        image[:40, :40] //= 2
    assert edges(find_part(named(images)))[1] == 0


def test_the_part_is_found_in_images_of_several_sizes():
    small = [image[::2, ::2] for image in chips((60, 70, 80, 90))]
    one = find_part(named(chips((60, 70, 80, 90))))
    both = find_part(named([*chips((60, 70, 80, 90)), *small]))
    assert np.abs(np.subtract(one.box, both.box)).max() < 0.02


def plain(count=3, noise=0.0, size=(120, 100)):
    return 128 + np.random.default_rng(3).normal(0, 1, (count, *size, 3)) * noise


def a_speck():
    images = plain()
    images[:, 50:53, 50:53] = 255
    return images


def a_small_thing():
    images = plain()
    images[:, 50:70, 50:70] = 255
    return images


def a_full_frame():
    images = plain()
    images[:, 2:-2, 2:-2] = 30
    images[:, 60:, :] = 30
    return images


def a_surface():
    return np.stack([cv2.resize(image, (100, 120)) for image in plain(3, 50, (30, 25))])


def one_without():
    images = plain()
    images[:2, 30:90, 20:80] = 255
    return images


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (plain(), "nothing stands out from the background of 0.png"),
        (plain(1, 5), "nothing stands out from the background of 0.png"),
        (plain(5, 5), "nothing stands out from the background of 0.png"),
        (a_speck(), r"spans only \d% of the frame's side, too little for the part"),
        (a_small_thing(), r"spans only 2\d% of the frame's side, too little for the part"),
        (a_surface(), "the border of 0.png shows no plain background"),
        (a_full_frame(), "what stands out of 0.png goes along too much of its border to tell the part"),
        (one_without(), "nothing stands out from the background of 2.png"),
    ],
)
def test_without_a_part_on_a_plain_background_the_frame_is_kept_and_it_says_why(images, why):
    found = find_part(named(np.clip(images, 0, 255).astype(np.uint8)))
    assert found.box == FRAME
    (line,) = found.said.splitlines()
    assert line.startswith("data.crop=auto: nothing is cropped, as ")
    assert line.endswith("; data.crop=[top,left,height,width] sets a box")
    assert re.search(why, line)


@pytest.mark.parametrize("box", [(4, 4, 192, 232), (0, 60, 200, 180), (12, 14, 176, 212), (0, 0, 200, 240)])
def test_a_part_that_fills_the_frame_keeps_it(box):
    assert find_part(named(chips(box))).box == FRAME


@pytest.mark.parametrize("register", [False, True])
def test_photographs_are_not_all_held_at_once(monkeypatch, register):
    held, drawn = [], list(chips((60, 70, 80, 90), count=8))
    wanted = find_part(named(drawn))

    def read(file, reading):
        image = drawn[int(file.stem)].copy()
        held.append(weakref.ref(image))
        assert sum(one() is not None for one in held) <= 4
        return image

    monkeypatch.setattr(part_box, "read_image", read)
    monkeypatch.setattr(part_box, "onto", lambda reference, image, mask, file: (image, mask, True))
    files = [Path(f"{row}.png") for row in range(8)]
    assert part_box.part_box(files, ALONE, register=register) == wanted
    assert len(held) >= 8


def test_of_many_images_some_are_looked_at_from_the_first_to_the_last(monkeypatch):
    (image,) = chips((60, 70, 80, 90), count=1)
    seen = []
    monkeypatch.setattr(part_box, "read_image", lambda file, reading: seen.append(int(file.stem)) or image)
    part_box.part_box([Path(f"{row}.png") for row in range(300)], ALONE, register=False)
    assert len(seen) == part_box.DRAWN
    assert (seen[0], seen[-1]) == (0, 299)
    assert np.diff(seen).max() <= 3
