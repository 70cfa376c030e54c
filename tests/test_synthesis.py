"""Pseudo anomalies: the contract of every synthesizer; Perlin noise, mask, blend and textures by their definitions."""

import pickle
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from scipy import ndimage

from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.synthesis.augmenters import AUGMENTERS
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.noise import perlin
from anomaly_lab.synthesis.perlin_texture import PerlinTexture
from anomaly_lab.synthesis.procedural import FAMILIES, make_textures
from tests.runs import composed

CONF = Path(__file__).parents[1] / "conf" / "synthesis"
YAMLS = sorted(CONF.glob("*.yaml"))
CODE_ONLY = ("gamma_contrast", "invert", "rotate")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photographs(count: int = 4, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Smooth colourful images, (N, H, W, 3) uint8, read-only as a memory map's may be."""
    noise = [cv2.resize(rng(i).integers(0, 256, (6, 8, 3), np.uint8), size[::-1]) for i in range(count)]
    images = np.stack(noise)
    images.flags.writeable = False
    return images


def perlin_texture(**changes: object) -> PerlinTexture:
    """DRAEM's recipe with a few procedural textures, set up for `photographs`."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "perlin_texture.yaml"))
    values.pop("_target_")
    synthesizer = PerlinTexture(**{**values, "num_procedural": 13, **changes})
    synthesizer.setup(photographs())
    return synthesizer


def write_textures(folder: Path, *colours: tuple[int, int, int]) -> str:
    for number, colour in enumerate(colours):
        file = folder / f"class_{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(file)
    return str(folder)


# The contract


@pytest.mark.parametrize("yaml", YAMLS, ids=lambda path: path.stem)
def test_contract(yaml):
    synthesizer = instantiate(composed(f"synthesis={yaml.stem}", "data=demo").synthesis, _convert_="all")
    assert isinstance(synthesizer, Synthesizer)
    images = photographs()
    before = images.copy()
    synthesizer.setup(images)
    for seed in range(60):
        clean = images[seed % 4]
        image, mask = synthesizer(clean, rng(seed))
        assert image.dtype == np.uint8
        assert image.shape == clean.shape
        assert mask.dtype == bool
        assert mask.shape == clean.shape[:2]
        assert np.array_equal(image[~mask], clean[~mask])
        again = synthesizer(clean, rng(seed))
        assert np.array_equal(image, again[0])
        assert np.array_equal(mask, again[1])
    assert np.array_equal(images, before)


def test_none_changes_nothing():
    synthesizer = instantiate(OmegaConf.load(CONF / "none.yaml"))
    image = photographs()[0]
    assert synthesizer(image, rng())[0] is image
    assert not synthesizer(image, rng())[1].any()
    assert synthesizer.source == "none"


def test_other_rng_other_defect():
    synthesizer, image = perlin_texture(probability=1.0, threshold=0.2), photographs()[0]
    images = {synthesizer(image, rng(seed))[0].tobytes() for seed in range(20)}
    assert len(images) == 20


def test_global_generators_are_neither_read_nor_moved():
    results = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what is tested
        random.seed(seed)
        before = str(np.random.get_state()), random.getstate()  # noqa: NPY002
        synthesizer = perlin_texture(probability=1.0)
        results.append([synthesizer(image, rng(k))[0].tobytes() for k, image in enumerate(photographs())])
        assert (str(np.random.get_state()), random.getstate()) == before  # noqa: NPY002
    assert results[0] == results[1]


def test_travels_to_spawned_workers():
    synthesizer, image = perlin_texture(probability=1.0), photographs()[0]
    twin = pickle.loads(pickle.dumps(synthesizer))
    assert np.array_equal(twin(image, rng(3))[0], synthesizer(image, rng(3))[0])


# Noise


def perlin_by_loops(shape, lattice, generator):
    angle = generator.uniform(0, 2 * np.pi, (lattice[0] + 1, lattice[1] + 1))
    noise = np.zeros(shape)
    for py in range(shape[0]):
        for px in range(shape[1]):
            y, x = py * lattice[0] / shape[0], px * lattice[1] / shape[1]
            for cy in (int(y), int(y) + 1):
                for cx in (int(x), int(x) + 1):
                    ramp = np.sin(angle[cy, cx]) * (y - cy) + np.cos(angle[cy, cx]) * (x - cx)
                    near = 1 - abs(y - cy), 1 - abs(x - cx)
                    fade = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in near]
                    noise[py, px] += np.sqrt(2) * fade[0] * fade[1] * ramp
    return noise


@pytest.mark.parametrize(
    ("shape", "lattice"),
    [
        ((32, 32), (4, 8)),
        ((30, 47), (4, 32)),
        ((17, 64), (1, 1)),
        ((20, 20), (32, 16)),
        ((5, 64), (2, 32)),
        ((1, 1), (8, 8)),
    ],
)
def test_perlin_is_its_definition(shape, lattice):
    noise = perlin(shape, lattice, rng(5))
    assert noise.dtype == np.float32
    assert noise.shape == shape
    assert np.abs(noise - perlin_by_loops(shape, lattice, rng(5))).max() < 1e-5


def test_perlin_stays_in_its_bounds():
    values = np.stack([perlin((64, 64), (4, 4), rng(seed)) for seed in range(50)])
    assert np.abs(values).max() <= 1
    assert values.max() > 0.9
    assert abs(values.mean()) < 0.01
    assert np.allclose(values[:, ::16, ::16], 0, atol=1e-6)  # zero on the lattice


# PerlinTexture


def test_mask_is_noise_above_threshold():
    synthesizer, image = perlin_texture(probability=1.0, rotate_degrees=0.0), photographs()[0]
    filled = 0
    for seed in range(40):
        twin = rng(seed)
        twin.random()
        rows, columns = 2 ** twin.integers(0, 6, 2)
        expected = (
            perlin_by_loops((48, 64), (rows, columns), twin) if seed < 4 else perlin((48, 64), (rows, columns), twin)
        )
        mask = synthesizer(image, rng(seed))[1]
        assert np.array_equal(mask, expected > 0.5)
        filled += mask.any()
    assert filled > 30


def test_mask_is_turned_with_zero_fill():
    straight, turned = (perlin_texture(probability=1.0, threshold=-0.01, rotate_degrees=d) for d in (0.0, 90.0))
    image = photographs()[0]
    corners = np.stack([[turned(image, rng(seed))[1][[0, 0, -1, -1], [0, -1, 0, -1]]] for seed in range(20)])
    assert corners.mean() > 0.9  # outside is 0, above -0.01
    same = [np.array_equal(turned(image, rng(s))[1], straight(image, rng(s))[1]) for s in range(20)]
    assert not any(same)


def test_lattice_sets_the_size_of_the_defects():
    image = photographs(1, (128, 128))[0]

    def blobs(exponents):
        synthesizer = perlin_texture(probability=1.0, lattice_exponents=exponents, num_procedural=1, num_augmenters=0)
        synthesizer.setup(image[None])
        return np.mean([ndimage.label(synthesizer(image, rng(seed))[1])[1] for seed in range(10)])

    few, some, many = (blobs([k, k]) for k in (0, 2, 5))
    assert few < 3 < some < 20 < many


def test_threshold_may_be_drawn_from_a_range():
    image = photographs()[0]
    low, drawn, high = (perlin_texture(probability=1.0, threshold=t) for t in (0.2, [0.2, 0.8], 0.8))
    areas = set()
    for seed in range(30):
        loose, mask, tight = (s(image, rng(seed))[1] for s in (low, drawn, high))
        assert not (tight & ~mask).any()
        assert not (mask & ~loose).any()
        areas.add((mask.sum() > tight.sum(), mask.sum() < loose.sum()))
    assert (True, True) in areas


@pytest.mark.parametrize("weights", [(0.2, 1.0), (0.1, 1.0)])  # code, text
def test_blend_and_opacity(tmp_path, weights):
    folder = write_textures(tmp_path, (250, 130, 10))
    changes = {"probability": 1.0, "threshold": -2.0, "num_augmenters": 0, "textures": folder}
    synthesizer = perlin_texture(texture_weight=list(weights), **changes)
    image, found = photographs()[0].astype(float), []
    difference = np.array([250.0, 130.0, 10.0]) - image
    for seed in range(300):
        result, mask = synthesizer(photographs()[0], rng(seed))
        assert mask.all()
        assert np.array_equal(result[difference == 0], image[difference == 0])
        # One weight w must explain all pixels: |image + w * difference - result| <= 0.5, an interval of w for each.
        change = (result - image)[difference != 0]
        ends = np.sort((change + np.array([[-0.5], [0.5]])) / difference[difference != 0], 0)
        assert ends[0].max() <= ends[1].min() + 1e-6
        found.append((ends[0].max() + ends[1].min()) / 2)
    low, high = weights
    assert low - 0.001 < min(found) < low + 0.03
    assert high - 0.03 < max(found) < high + 0.001


def test_share_of_clean_images():
    image = photographs(1, (8, 8))[0]
    for share in (0.0, 0.3, 0.5, 1.0):
        synthesizer = perlin_texture(probability=share, threshold=-2.0, num_procedural=1, num_augmenters=0)
        synthesizer.setup(image[None])
        clean = np.mean([not synthesizer(image, rng(seed))[1].any() for seed in range(800)])
        assert abs(clean - (1 - share)) <= 3 * np.sqrt(share * (1 - share) / 800)


@pytest.mark.parametrize(("pool", "number"), [("code", 3), ("text", 3), ("code", 4)])  # DRAEM, its text, PRFF-AD
def test_different_augmenters_in_random_order(monkeypatch, pool, number):
    names = [name for name in AUGMENTERS if pool == "code" or name not in CODE_ONLY]
    assert len(names) == {"code": 10, "text": 7}[pool]
    used: list[str] = []
    for name in AUGMENTERS:
        monkeypatch.setitem(AUGMENTERS, name, lambda image, generator, name=name: used.append(name) or image)
    synthesizer = perlin_texture(
        probability=1.0, threshold=-2.0, augmenters=names, num_augmenters=number, num_procedural=1
    )
    draws = []
    for seed in range(300):
        used.clear()
        synthesizer(photographs()[0], rng(seed))
        draws.append(tuple(used))
    assert all(len(set(draw)) == number == len(draw) for draw in draws)
    assert {name for draw in draws for name in draw} == set(names)
    assert len(set(draws)) > 150


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"probability": 1.5}, "synthesis.probability"),
        ({"num_augmenters": 11}, "synthesis.num_augmenters"),
        ({"threshold": [0.5, 0.2]}, "synthesis.threshold"),
        ({"texture_weight": [0.5]}, "synthesis.texture_weight"),
        ({"lattice_exponents": [0, 1, 2]}, "synthesis.lattice_exponents"),
    ],
)
def test_misfit_is_named(changes, key):
    with pytest.raises(ConfigError, match=key):
        perlin_texture(**changes)


# Textures


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
    variants = [perlin_texture(probability=1.0, textures=str(tmp_path), textures_gb=gb) for gb in (1.0, three, 0.0)]
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
