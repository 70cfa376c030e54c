"""The pictures of a run: which are there."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction
from tests.support.data_modules import mvtec, ready
from tests.support.evaluation import evaluated, settings
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")


class Blind(AnomalyMethod):
    """Scores an image by its brightest pixel and has no embedding."""

    def forward(self, image):
        anomaly_map = image.mean(1)
        return Prediction(anomaly_map, anomaly_map.amax((1, 2)))

    def training_step(self, batch, batch_idx):
        """Learn nothing."""


class Embedding(Blind):
    """Embeds an image by the brightness of its parts."""

    def embed(self, image):
        return torch.nn.functional.adaptive_avg_pool2d(image, 4).flatten(1).half()


class Further(Embedding):
    """Has vectors besides those that it embeds an image by."""

    def latents(self, image):
        return {"latent": image.mean(1)[:, ::8, ::8].flatten(1)}


def measured(path: Path, method: AnomalyMethod, **tree: int) -> Path:
    """Test as a run does; return the run directory."""
    data = ready(mvtec(mvtec_tree(path / "data", train=4, **tree)))
    folder = path / "model" / "mvtec" / "part" / "run-0-seed0"
    evaluated(folder, data, method, settings(overlays=4, bootstrap=20))
    assert not list(folder.rglob("*.part"))
    return folder


def test_a_run_writes_both_pictures_and_the_places(tmp_path):
    path = measured(tmp_path, Embedding(), good=6, bad=5)
    assert sorted(file.name for file in (path / "figures").iterdir()) == [
        "roc_pr.png",
        "tsne.csv",
        "tsne.png",
    ]
    for name in ("roc_pr", "tsne"):
        with Image.open(path / "figures" / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert picture.width == 1350
            assert len(picture.convert("RGB").getcolors(2**20)) > 20
    with (path / "figures" / "tsne.csv").open() as file:
        found = list(csv.DictReader(file))
    with (path / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    for one, other in zip(found, predictions, strict=True):
        assert [one[key] for key in ("path", "defect", "label")] == [
            other[key] for key in ("path", "defect", "label")
        ]
    assert np.isfinite([[float(row["x"]), float(row["y"])] for row in found]).all()


def test_further_vectors_of_a_method_have_a_picture_and_places_of_their_own(tmp_path):
    path = measured(tmp_path, Further(), good=6, bad=5)
    named = {"roc_pr.png", "tsne.csv", "tsne.png", "tsne_latent.csv", "tsne_latent.png"}
    assert {file.name for file in (path / "figures").iterdir()} == named
    places = []
    for name in ("tsne", "tsne_latent"):
        with (path / "figures" / f"{name}.csv").open() as file:
            places.append([(row["path"], row["x"], row["y"]) for row in csv.DictReader(file)])
    assert [row[0] for row in places[0]] == [row[0] for row in places[1]]
    assert places[0] != places[1]


def test_a_method_without_embedding_has_no_scatter_plot(tmp_path):
    path = measured(tmp_path, Blind())
    assert [file.name for file in (path / "figures").iterdir()] == ["roc_pr.png"]


def test_too_few_images_are_said_and_not_drawn(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        path = measured(tmp_path, Embedding(), good=2, bad=2)
    assert "no figures/tsne.png: 4 test images are fewer than 5" in caplog.text
    assert [file.name for file in (path / "figures").iterdir()] == ["roc_pr.png"]


def test_without_both_kinds_there_is_no_curve_to_draw(tmp_path):
    path = measured(tmp_path, Embedding(), good=6, bad=0)
    assert sorted(file.name for file in (path / "figures").iterdir()) == ["tsne.csv", "tsne.png"]


@pytest.mark.parametrize("poison", [False, True])
def test_without_overlays_there_are_no_pictures(tmp_path, poison):
    data = ready(mvtec(mvtec_tree(tmp_path / "data", train=4, good=6, bad=5)))
    evaluated(tmp_path / "run", data, Embedding(), settings(poison=poison))
    found = [str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*.png")]
    assert found == []
