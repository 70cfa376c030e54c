"""The part's box: found on drawn chips, and nothing found where there is none."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.data import part_box
from anomaly_lab.data.geometry import Geometry
from anomaly_lab.data.images import ALONE
from anomaly_lab.data.part_box import find_part
from anomaly_lab.errors import DataError


def chips(box, size=(200, 240), count=6, light=60, noise=6):
    """Textured rectangles, each with a hole of the background's colour, on a plain noisy ground with dust."""
    top, left, height, width = box
    for index in range(count):
        rng = np.random.default_rng((index, *box))
        image = np.full((*size, 3), (90.0, 120.0, 100.0))
        image[top : top + height, left : left + width] += light + 20 * np.sin(np.arange(width) / 3)[:, None]
        hole = slice(top + height // 3, top + height // 2), slice(left + width // 3, left + width // 2)
        image[hole] = (90.0, 120.0, 100.0)
        image[tuple(rng.integers(0, size))] = 255
        yield np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("light", [60, -60])
@pytest.mark.parametrize("box", [(60, 70, 80, 90), (30, 100, 120, 60), (90, 20, 40, 180), (50, 3, 100, 100)])
def test_the_part_is_found_and_boxed_by_a_square_in_the_image(box, light):
    found = np.array(find_part(chips(box, light=light), 6)) * [200, 240, 200, 240]
    side = 1.1 * max(box[2:])
    height, width = min(side, 200), min(side, 240)
    top = min(max(box[0] + box[2] / 2 - height / 2, 0), 200 - height)
    left = min(max(box[1] + box[3] / 2 - width / 2, 0), 240 - width)
    assert np.abs(found - [top, left, height, width]).max() < 0.03 * side
    Geometry((64, 64), "stretch", None, tuple(found / [200, 240, 200, 240]))


def test_the_part_is_found_in_images_of_several_sizes():
    small = [image[::2, ::2] for image in chips((60, 70, 80, 90))]
    one = find_part(chips((60, 70, 80, 90)), 6)
    both = find_part([*chips((60, 70, 80, 90)), *small], 12)
    assert np.abs(np.subtract(one, both)).max() < 0.015


def test_corners_that_touch_make_one_part():
    image = np.zeros((48, 48, 3), np.uint8)
    image[8:20, 8:20] = image[20:32, 20:32] = 200
    assert np.allclose(np.multiply(find_part([image], 1), 48), [20 - 13.2, 20 - 13.2, 26.4, 26.4])


@pytest.mark.parametrize("noise", [0, 5, 25])
@pytest.mark.parametrize("count", [1, 5])
def test_no_part_is_an_error_with_the_way_out(noise, count):
    plain = 128 + np.random.default_rng(3).normal(0, 1, (count, 120, 100, 3)) * noise
    with pytest.raises(DataError, match=r"data\.crop=auto: .*set data\.crop=null"):
        find_part(list(np.clip(plain, 0, 255).astype(np.uint8)), count)
    plain[:, 50:53, 50:53] = 255  # a speck is no part
    with pytest.raises(DataError, match=r"data\.crop=null"):
        find_part(list(np.clip(plain, 0, 255).astype(np.uint8)), count)


@pytest.mark.parametrize("register", [False, True])
def test_photographs_are_not_all_held_at_once(monkeypatch, register):
    held, drawn = [], list(chips((60, 70, 80, 90), count=8))
    wanted = find_part(drawn, 8)

    def read(file, reading):
        image = drawn[int(file.stem)].copy()
        held.append(weakref.ref(image))
        assert sum(one() is not None for one in held) <= 4
        return image

    monkeypatch.setattr(part_box, "read_image", read)
    monkeypatch.setattr(part_box, "onto", lambda reference, image, mask, file: (image, mask, True))
    assert part_box.part_box([Path(f"{row}.png") for row in range(8)], ALONE, register=register) == wanted
    assert len(held) >= 8
