"""Textures: folders of them, and those that are computed."""

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scipy.stats import kstest

from anomaly_lab.config.building import built
from anomaly_lab.data.geometry import Geometry, resize_image
from anomaly_lab.errors import ConfigError, DataError, mendable
from anomaly_lab.synthesis import procedural
from anomaly_lab.synthesis.procedural import FAMILIES, make_textures
from anomaly_lab.synthesis.textures import PlainColours, TextureFolder
from tests.support.runs import CONF, composed
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
    for number, texture in enumerate(make_textures(6, (70, 50), 0)):
        Image.fromarray(texture).save(tmp_path / f"{number}.png")
    three = 3.5 * 48 * 64 * 3 / 2**30
    variants = [
        perlin_texture(probability=1.0, textures=str(tmp_path), textures_gb=gb) for gb in (1.0, three, 0.0)
    ]
    for seed in range(30):
        first, *others = (s(photographs()[0], rng(seed))[0] for s in variants)
        assert all(np.array_equal(first, other) for other in others)


def test_folder_errors_name_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder.*or procedural for"):
        perlin_texture(textures=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no \.jpg or \.png.*or procedural for"):
        perlin_texture(textures=str(tmp_path))
    write_textures(tmp_path, (1, 2, 3))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: .*remove or replace"):
        perlin_texture(textures=str(tmp_path))


def test_a_texture_that_is_cut_off_ends_before_the_first_image(tmp_path):
    """Also where the memory holds none, so that it would be opened in mid-training."""
    for name, options in (("a.jpg", {"quality": 90}), ("b.png", {})):
        folder = tmp_path / name[0]
        write_textures(folder, (1, 2, 3))
        Image.fromarray(make_textures(1, (90, 90), 0)[0]).save(folder / name, **options)
        (folder / name).write_bytes((folder / name).read_bytes()[:-400])
        for memory in (1.0, 0.0):
            with pytest.raises(
                DataError, match=rf"{name}: cannot be read as a texture \(.*truncated.*remove"
            ):
                perlin_texture(textures=str(folder), textures_gb=memory)(photographs()[0], rng(0))


def test_what_is_not_given_is_one_line_with_the_way_out():
    with pytest.raises(
        ConfigError, match=r"^synthesis\.textures: none given; give textures=FOLDER .* or textures=procedural"
    ):
        perlin_texture(textures=None)
    assert perlin_texture(textures="procedural").source == "procedural"
    assert perlin_texture(textures="plain").source == "plain colours"


@pytest.mark.parametrize("model", ["draem", "prff", "mlff"])
def test_a_full_recipe_says_no_textures_and_its_small_one_and_a_data_set_do(model, tmp_path):
    def source(*overrides: str) -> str:
        return built(composed("data=mvtec", "data.category=a", *overrides).synthesis).source

    with pytest.raises(Exception, match="textures: none given; give textures=FOLDER") as caught:
        source(f"model={model}")
    assert isinstance(mendable(caught.value), ConfigError)
    folder = write_textures(tmp_path, (250, 0, 0))
    for given, wanted in (
        ([f"model={model}", "textures=procedural"], "procedural"),
        ([f"model={model}", f"textures='{folder}'"], f"folder {folder}, 1 images"),
        ([f"model={model}_small"], "procedural"),
        ([f"model={model}", "synthesis=none"], "none"),
    ):
        assert wanted in source(*given)
    data = composed("model=nearest", "data=synthetic_defects", "data.category=a", "textures=elsewhere").data
    assert data.defects.textures == "procedural"


def test_a_plain_colour_has_a_number_and_all_are_as_likely():
    colours = PlainColours((3, 5))
    assert len(colours) == 256**3
    for index, colour in ((0, [0, 0, 0]), (0x0102FF, [1, 2, 255]), (len(colours) - 1, [255, 255, 255])):
        assert np.array_equal(colours[index], np.full((3, 5, 3), colour, np.uint8))
    synthesizer = perlin_texture(
        probability=1.0, threshold=-2.0, num_augmenters=0, textures="plain", texture_weight=[1.0, 1.0]
    )
    drawn = np.array([synthesizer(photographs()[0], rng(seed))[0] for seed in range(300)])
    assert (np.ptp(drawn, (1, 2)) == 0).all()
    assert kstest(drawn[:, 0, 0].ravel() / 256, "uniform").pvalue > 1e-3


def test_hidden_files_are_no_textures(tmp_path):
    folder = write_textures(tmp_path, (250, 0, 0))
    (tmp_path / "._x.jpg").write_bytes(b"Mac OS X        ")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.png").write_bytes(b"")
    assert perlin_texture(textures=folder).source.startswith(f"folder {folder}, 1 images, ")


def test_every_kind_of_texture_is_what_opencv_reads(tmp_path):
    texture = make_textures(1, (48, 64), 0)[0]
    kinds = {"a.jpg": texture, "b.jpg": texture[..., 0], "c.png": texture, "d.png": texture[..., 1]}
    kinds |= {
        "e.png": texture[..., 0].astype(np.uint16) * 257,
        "f.png": np.dstack([texture, texture[..., 0]]),
    }
    for name, values in kinds.items():
        Image.fromarray(values).save(tmp_path / name)
    loaded = TextureFolder(str(tmp_path), 1.0, "antialias").load((48, 64))
    wanted = [cv2.imread(str(tmp_path / name))[..., ::-1] for name in sorted(kinds)]
    assert np.array_equal(loaded.decoded, wanted)


@pytest.mark.parametrize("resize", ["antialias", "opencv"])
def test_textures_are_resized_as_images_are(tmp_path, resize):
    texture = rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(texture).save(tmp_path / "0.png")
    loaded = TextureFolder(str(tmp_path), 1.0, resize).load((48, 64))
    geometry = Geometry((48, 64), "stretch", None, None, resize)
    assert np.array_equal(loaded[0], resize_image(texture, geometry.place((90, 70)), geometry))
    way = OmegaConf.load(CONF / "config.yaml")
    way.merge_with(
        {"data": {"resize": resize}, "synthesis": OmegaConf.load(CONF / "synthesis/perlin_texture.yaml")}
    )
    assert way.synthesis.resize == resize
    folder = str(tmp_path)
    changes = {"probability": 1.0, "threshold": -2.0, "num_augmenters": 0, "texture_weight": [1.0, 1.0]}
    synthesizer = perlin_texture(textures=folder, resize=resize, **changes)
    assert np.array_equal(synthesizer(photographs()[0], rng(1))[0], loaded[0])


def test_procedural_textures_are_many_and_repeatable():
    textures = make_textures(26, (40, 56), 0)
    assert textures.shape == (26, 40, 56, 3)
    assert textures.dtype == np.uint8
    procedural._made.cache_clear()
    assert np.array_equal(textures, make_textures(26, (40, 56), 0))
    assert len({texture.tobytes() for texture in textures}) == 26
    assert not np.array_equal(textures, make_textures(26, (40, 56), 1))
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
