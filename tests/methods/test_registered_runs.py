"""Registration in whole runs: images lie alike in training and in a loaded run; what cannot be registered."""

import csv

import numpy as np
import pytest
from PIL import Image

import anomaly_lab
from anomaly_lab.data.registration import register, warped
from anomaly_lab.errors import ConfigError, DataError
from tests.support.data_modules import mvtec, ready
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree


def predictions(path):
    with (path / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def part(angle: float) -> np.ndarray:
    """A bright L on grey, turned about the centre."""
    image = np.full((96, 96, 3), 60, np.uint8)
    image[25:70, 30:42] = 200
    image[58:70, 30:66] = 170
    how = {"resample": Image.Resampling.BILINEAR, "fillcolor": (60, 60, 60)}
    return np.array(Image.fromarray(image).rotate(angle, **how))


def test_registered_images_lie_alike_in_training_and_in_a_loaded_run(tmp_path):
    root = tmp_path / "data/part"
    angles = {"train/good": (0, 20, 75, 140, 200, 310), "test/good": (33, 250), "test/cut": (100, 180)}
    for folder, turns in angles.items():
        (root / folder).mkdir(parents=True)
        for angle in turns:
            image = part(angle)
            if folder == "test/cut":
                image[44:52, 44:52] = 0
            Image.fromarray(image).save(root / folder / f"{angle:03}.png")
    plain, registered = (ready(mvtec(tmp_path / "data", image_size=96, register=on)) for on in (False, True))
    spread = [data.train.images.astype(float).std(axis=0).mean() for data in (plain, registered)]
    assert spread[1] < spread[0] / 3
    np.testing.assert_array_equal(registered.reference, part(0))
    given = ("model=variation", *on_tree(tmp_path / "data"), "data.image_size=96")
    _, path = ran(tmp_path, *given, "data.register=true", "evaluation.overlays=0")
    rows = predictions(path)
    loaded = anomaly_lab.load(path)
    scores = loaded.predict([np.array(Image.open(row["path"])) for row in rows]).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], rtol=1e-4)
    turned = warped(part(100), register(part(100), plain.train.images[0]))
    assert np.abs(turned.astype(float) - part(0)).mean() < 3
    with pytest.raises(
        ConfigError, match=r"evaluation\.resolution: original does not go with data\.register"
    ):
        ran(tmp_path, *given, "data.register=true", "evaluation.resolution=original")


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_registration_comes_before_the_resize_so_a_tall_photograph_is_only_turned(tmp_path, fit):
    root = tmp_path / "data/part"
    for folder, turns in {"train/good": (0, 15, 40), "test/good": (20,)}.items():
        (root / folder).mkdir(parents=True)
        for angle in turns:
            tall = np.full((140, 96, 3), 60, np.uint8)
            tall[22:118] = part(angle)
            Image.fromarray(tall).save(root / folder / f"{angle:03}.png")
    images = ready(mvtec(tmp_path / "data", image_size=96, register=True, fit=fit)).train.images.astype(float)
    assert np.abs(images[1:] - images[0]).mean() < 3


def test_photographs_of_unlike_sizes_cannot_be_registered(tmp_path):
    tree = mvtec_tree(tmp_path / "tree", train=10, good=4, bad=4, size=(64, 64))
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tree / "part/test/good/001.png")
    with pytest.raises(DataError, match=r"001\.png: has .*\(30, 40\).* wants photographs of one size"):
        ready(mvtec(tree, register=True))
