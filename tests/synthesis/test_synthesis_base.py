"""The contract of every synthesizer; of those that take an image's own patches: masks, shares, misfits."""

import math
import pickle
import random

import numpy as np
import pytest
from omegaconf import OmegaConf

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from tests.support.runs import CONF, composed
from tests.support.synthesizers import BIG, cutpaste, natural, noise, perlin_texture, photographs, rng, smooth

YAMLS = sorted((CONF / "synthesis").glob("*.yaml"))
SIZES = [(17, 33), (1, 40), (40, 1), (1, 1), (8, 9), (9, 9), (64, 256), (61, 47)]

KINDS = {
    "normal": lambda normals: cutpaste(variant="normal"),
    "scar": lambda normals: cutpaste(variant="scar"),
    "union": lambda normals: cutpaste(),
    "nsa": natural,
    "mixed": lambda normals: natural(normals, clone="mixed", median=1),
    "background": lambda normals: natural(normals, background=[200, 60], min_object=0.7),
}


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
    synthesizer = instantiate(OmegaConf.load(CONF / "synthesis/none.yaml"))
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


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_what_changed(kind, size):
    plain, changed = np.stack([np.full((*size, 3), level, np.uint8) for level in (255, 0, 90)]), 0
    for images in (noise(size, 3), smooth(size, 3), plain):
        before, synthesizer = images.copy(), KINDS[kind](images)
        for seed in range(12):
            clean = images[seed % 3]
            image, mask = synthesizer(clean, rng(seed))
            assert (image.dtype, image.shape, mask.dtype) == (np.uint8, clean.shape, bool)
            assert np.array_equal(mask, (image != clean).any(2))
            again = synthesizer(clean, rng(seed))
            assert np.array_equal(image, again[0])
            changed += mask.any()
        assert np.array_equal(images, before)
    assert changed > 5 or min(size) < 40 or kind == "background"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_clean_images(share):
    image = noise((64, 64))[0]
    for synthesizer in (
        cutpaste(probability=share, variant="normal"),
        natural(image[None], probability=share, **BIG),
    ):
        spoiled = np.mean([synthesizer(image, rng(seed))[1].any() for seed in range(300)])
        assert abs(spoiled - share) <= 3 * math.sqrt(share * (1 - share) / 300)


@pytest.mark.parametrize(
    ("make", "changes", "key"),
    [
        (cutpaste, {"probability": 1.5}, "probability"),
        (cutpaste, {"area": [0.2, 0.1]}, "area"),
        (cutpaste, {"area": [0.02, 0.4]}, "aspect"),
        (cutpaste, {"aspect": 3.0}, "aspect"),
        (cutpaste, {"scar_width": [0, 4]}, "scar_width"),
        (cutpaste, {"rotation": [45, -45]}, "rotation"),
        (cutpaste, {"jitter": 0.7}, "jitter"),
        (natural, {"num_patches": 0}, "num_patches"),
        (natural, {"half_width": [0.03, 0.6]}, "half_width"),
        (natural, {"resize": [1.3, 0.7]}, "resize"),
        (natural, {"background": [20]}, "background"),
        (natural, {"min_object": 1.0}, "min_object"),
        (natural, {"median": 4}, "median"),
    ],
)
def test_misfit_is_named(make, changes, key):
    with pytest.raises(ConfigError, match=rf"^synthesis\.{key}: .*give"):
        make(**changes)


def test_sources_are_named():
    assert isinstance(cutpaste(), Synthesizer)
    assert (cutpaste().source, natural().source) == ("the image itself", "the training images")
