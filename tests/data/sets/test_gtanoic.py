"""GTanoIC: chips on a plain ground, cropped to the part, none stretched."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from anomaly_lab.data.sets.gtanoic import GTanoIC
from anomaly_lab.errors import DataError
from tests.support.data_modules import COMMON, listed, ready
from tests.support.runs import CONF
from tests.support.trees import write_png


def test_a_found_part_is_cropped_in_every_split(tmp_path):
    """GTanoIC: chips on a plain ground, which its recipe crops to the part."""
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 80), bool)
    mask[12:42, 30:60] = True  # the part: 30 pixels a side
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0"):
        image = np.where(
            mask[..., None], rng.integers(150, 250, (60, 80, 3)), rng.integers(8, 14, (60, 80, 3))
        )
        write_png(tmp_path / f"D_C/{name}.png", image.astype(np.uint8))
    write_png(tmp_path / "D_C/ground_truth/crack/0_mask.png", mask)
    data = GTanoIC(**{**COMMON, "root": str(tmp_path), "category": "D_C", "crop": "auto", "image_size": 32})
    assert data.geometry().crop is not None  # also before anything is decoded
    top, left, height, width = np.array(ready(data).crop_box) * (60, 80, 60, 80)
    assert 8 <= top <= 12
    assert 26 <= left <= 30
    assert 42 <= top + height <= 46
    assert 60 <= left + width <= 64
    assert data.test.images[:, 4:28, 4:28].min() > 100
    assert data.test.masks[1].mean() > 0.6
    assert data.described()["crop_said"] in data.notes
    assert "holds the part on 2 training images" in data.described()["crop_said"]
    with pytest.raises(DataError, match="D_A: no such folder; there are: D_C"):
        listed(GTanoIC(**{**COMMON, "root": str(tmp_path), "category": "D_A"}))


def test_a_wide_chip_is_not_stretched_where_the_frame_ends(tmp_path):
    """GTanoIC's recipe: the square around the chip is higher than the photograph; the ground goes on."""
    recipe = OmegaConf.load(CONF / "data/gtanoic.yaml")
    rng = np.random.default_rng(1)
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0"):
        image = np.full((60, 100, 3), (40, 90, 60), np.uint8)
        image[20:40, 15:85] = rng.integers(150, 250, (20, 70, 3))
        write_png(tmp_path / f"D_A/{name}.png", image)
    given = {"root": str(tmp_path), "category": "D_A", "crop": recipe.crop, "fit": recipe.fit}
    data = ready(GTanoIC(**{**COMMON, **given, "image_size": 64}))
    top, left, height, width = np.array(data.crop_box) * (60, 100, 60, 100)
    assert (top, height) == (0, 60)
    assert left < 15
    assert 77 <= width < 90
    scale = 64 / width
    for image in data.test.images.astype(int):
        ground = np.abs(image - (40, 90, 60)).max(axis=2) <= 1
        rows, columns = (np.flatnonzero(~ground.all(axis=axis)) for axis in (1, 0))
        assert abs(np.ptp(rows) + 1 - 20 * scale) <= 3
        assert abs(np.ptp(columns) + 1 - 70 * scale) <= 3
        assert ground[:4].all()
        assert ground[-4:].all()


def test_a_chip_that_fills_the_frame_keeps_it(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0"):
        write_png(tmp_path / f"D_A/{name}.png", rng.integers(0, 250, (60, 60, 3)).astype(np.uint8))
    data = ready(GTanoIC(**{**COMMON, "root": str(tmp_path), "category": "D_A", "crop": "auto"}))
    assert data.crop_box == (0, 0, 1, 1)
    (said,) = data.notes
    assert said.startswith("data.crop=auto: nothing is cropped, as the border of ")
    assert data.described() == {**data.described(), "crop_box": [0, 0, 1, 1], "crop_said": said}
