"""Textures: folders of them, and those that are computed."""

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.errors import DataError
from anomaly_lab.synthesis.procedural import FAMILIES, make_textures
from tests.support.synthesizers import perlin_texture, photographs, rng, write_textures


def test_folder_is_searched_in_depth_and_read_as_rgb(tmp_path):
    folder = write_textures(tmp_path, (250, 0, 0), (0, 250, 0), (0, 0, 250))
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "grey.JPG")
    (tmp_path / "notes.txt").write_text("not a texture")
    changes = {"probability": 1.0, "threshold": -2.0, "num_augmenters": 0, "texture_weight": [1.0, 1.0]}
    synthesizer = perlin_texture(textures=folder, **changes)
    assert synthesizer.source.startswith(f"folder {folder}, 4 images, digest ")
    colours = {tuple(synthesizer(photographs()[0], rng(seed))[0][5, 5]) for seed in range(60)}
    assert colours == {(250, 0, 0), (0, 250, 0), (0, 0, 250), (9, 9, 9)}


def test_memory_budget_changes_no_result(tmp_path):
    for number, texture in enumerate(make_textures(6, (70, 50), rng(0))):
        Image.fromarray(texture).save(tmp_path / f"{number}.png")
    three = 3.5 * 48 * 64 * 3 / 2**30
    variants = [
        perlin_texture(probability=1.0, textures=str(tmp_path), textures_gb=gb) for gb in (1.0, three, 0.0)
    ]
    for seed in range(30):
        first, *others = (s(photographs()[0], rng(seed))[0] for s in variants)
        assert all(np.array_equal(first, other) for other in others)


def test_folder_errors_name_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder.*null for procedural"):
        perlin_texture(textures=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no \.jpg or \.png.*null for procedural"):
        perlin_texture(textures=str(tmp_path))
    write_textures(tmp_path, (1, 2, 3))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: .*remove or replace"):
        perlin_texture(textures=str(tmp_path))


def test_procedural_textures_are_many_and_repeatable():
    textures = make_textures(26, (40, 56), rng(0))
    assert textures.shape == (26, 40, 56, 3)
    assert textures.dtype == np.uint8
    assert np.array_equal(textures, make_textures(26, (40, 56), rng(0)))
    assert len({texture.tobytes() for texture in textures}) == 26
    assert not np.array_equal(textures, make_textures(26, (40, 56), rng(1)))
    assert len(FAMILIES) >= 6
    assert np.median(textures.std((1, 2))) > 20  # of 255: they have contrast
    assert np.ptp(textures.mean((1, 2)), 0).min() > 100  # and differ in every colour
    assert perlin_texture(num_procedural=2).source == "procedural"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_family_is_a_relief_with_numbers(family):
    for seed, size in enumerate([(16, 16), (33, 80), (80, 33)]):
        relief, number = family(size, rng(seed))
        assert relief.shape == number.shape == size
        assert relief.dtype == np.float32
        assert number.dtype == np.int64
        assert relief.min() >= 0
        assert relief.max() <= 1
        assert np.ptp(relief) > 0.2
