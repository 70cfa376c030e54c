"""The pictures of a run: their lines against scikit-learn, their pixels where they should be, t-SNE keeps kinds."""

import csv
import io
import logging
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from threadpoolctl import threadpool_limits

from anomaly_lab.callbacks.evaluation import Evaluation
from anomaly_lab.callbacks.figures import COLOURS, Figures, curves_figure, operating_points, scatter_figure, tsne
from anomaly_lab.callbacks.pictures import drawn, png
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.metrics.curves import ExactCurves
from anomaly_lab.results import RunDirectory
from anomaly_lab.types import ImageRecord, Prediction
from tests.data_modules import mvtec, ready
from tests.trees import mvtec_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")
TITLE = "nearest / mvtec / part / run-01234567-seed0"


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


def measured(path: Path, method: AnomalyMethod, **tree: int) -> Path:
    """Test as a run does; return the run directory."""
    data = ready(mvtec(mvtec_tree(path / "data", train=4, **tree)))
    directory = RunDirectory(path / "model" / "mvtec" / "part" / "run-0-seed0")
    watching = [Evaluation(directory, data, "network", 0.3, 0.05, 20), Figures(directory, data)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=path, enable_model_summary=False, callbacks=watching, **quiet
    )
    trainer.test(method, datamodule=data, verbose=False)
    assert not list(directory.path.rglob("*.part"))
    return directory.path


def scored(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return scores with ties, and labels."""
    rng = np.random.default_rng(0)
    label = rng.random(count) < 0.4
    return np.round(rng.normal(size=count) + label, 1).astype(np.float32), label


def gathered(score: np.ndarray, label: np.ndarray, level: str = "image") -> tuple[dict, dict]:
    """Return curves and metrics under the names of a run's files."""
    state = ExactCurves()
    state.update(score, label)
    return {f"{level}_{name}": points for name, points in state.curves().items()}, state.summary(level, 0.3)


def line(axes, colour: str) -> tuple[np.ndarray, object]:
    """Return the (N, 2) points of the only line of this colour, and the line."""
    (found,) = [one for one in axes.lines if one.get_color() == colour]
    return found.get_xydata(), found


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def rendered(figure) -> np.ndarray:
    """Return the (H, W, 3) uint8 picture as a run writes it."""
    return np.array(Image.open(io.BytesIO(png(drawn(figure)))).convert("RGB"))


def away(points: np.ndarray, path: np.ndarray) -> float:
    """Return how far the farthest of (N, 2) points lies from the straight lines between those of an (M, 2) path."""
    start, step = path[:-1], np.diff(path, axis=0)
    share = ((points[:, None] - start) * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * step
    return float(np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1).max())


def test_the_drawn_curves_are_scikit_learns():
    score, label = scored()
    roc, pr = curves_figure(*gathered(score, label), TITLE).axes
    drawn, _ = line(roc, COLOURS["image"])
    theirs = np.stack(roc_curve(label, score, drop_intermediate=False)[:2], 1)
    assert away(theirs, drawn) < 1e-12
    assert cdist(drawn, theirs).min(axis=1).max() < 1e-12
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(roc_auc_score(label, score))
    drawn, steps = line(pr, COLOURS["image"])
    precision, recall, _ = precision_recall_curve(label, score)
    assert cdist(drawn, np.stack([recall, precision], 1)).min(axis=1).max() < 1e-12
    assert steps.get_drawstyle() == "steps-pre"
    area = (np.diff(drawn[:, 0]) * drawn[1:, 1]).sum()
    assert area == pytest.approx(average_precision_score(label, score))
    assert words(roc) == [f"image AUROC {roc_auc_score(label, score):.3f}", "chance"]
    assert words(pr) == [f"image AP {average_precision_score(label, score):.3f}", f"chance: image {label.mean():.3g}"]


def test_pixel_curves_share_the_panels_and_bring_a_third():
    score, label = scored()
    curves, metrics = gathered(score, label)
    rng, state = np.random.default_rng(1), ExactCurves()
    mask = np.zeros((40, 40), bool)
    mask[5:15, 5:15] = mask[30:33, 30:33] = True
    noise = rng.normal(size=mask.shape) + mask
    state.update_map(noise, mask)
    curves |= {f"pixel_{name}": points for name, points in state.curves().items()}
    metrics |= state.summary("pixel", 0.3) | {"image_auroc_low": 0.1234, "image_auroc_high": 0.9}
    figure = curves_figure(curves, metrics, TITLE)
    roc, pr, pro = figure.axes
    assert figure.get_suptitle() == TITLE
    assert words(roc)[0].endswith("(95 %: 0.123 to 0.900)")
    assert words(roc)[1] == f"pixel AUROC {roc_auc_score(mask.ravel(), noise.ravel()):.3f}"
    assert words(pr)[-1] == f"chance: image {label.mean():.3g}, pixel {mask.mean():.3g}"
    drawn, _ = line(pro, COLOURS["pixel"])
    for fpr, overlap in drawn[:: len(drawn) // 7]:
        limit = np.quantile(noise[~mask], 1 - fpr, method="inverted_cdf") if fpr < 1 else -np.inf
        over = noise > limit
        wanted = (over[5:15, 5:15].mean() + over[30:33, 30:33].mean()) / 2
        assert overlap == pytest.approx(wanted, abs=0.02)  # at equal FPR, within one of the 500 points


def test_the_operating_point_is_what_the_threshold_gives():
    score, label = scored()
    called = score > 0.75
    recall, fpr = recall_score(label, called), called[~label].mean()
    curves, metrics = gathered(score, label)
    metrics |= {"threshold": 0.75, "image_recall_at_threshold": recall, "image_fpr_at_threshold": fpr}
    points = operating_points(curves, metrics)
    assert points["auroc"] == (fpr, recall)
    np.testing.assert_allclose(points["ap"], (recall, precision_score(label, called)))
    roc, pr = curves_figure(curves, metrics, TITLE).axes
    for axes, metric in ((roc, "auroc"), (pr, "ap")):
        (marker,) = [one for one in axes.lines if one.get_marker() == "o"]
        np.testing.assert_allclose(marker.get_xydata()[0], points[metric])
        assert away(np.array([points[metric]]), line(axes, COLOURS["image"])[0]) < 1e-12
        assert words(axes)[1].startswith("threshold 0.75: (")
    nothing = metrics | {"image_recall_at_threshold": 0.0, "image_fpr_at_threshold": 0.0}
    assert operating_points(curves, nothing) == {"auroc": (0.0, 0.0)}


def test_the_picture_shows_the_curve_and_cuts_nothing_off():
    score, label = np.array([3, 2, 2, 1], np.float32), np.array([True, False, False, True])
    curves, metrics = gathered(score, label)
    figure = curves_figure(curves, metrics, TITLE)
    picture = rendered(figure)
    assert picture.shape[1] == 1350
    blue = np.array([int(COLOURS["image"][k : k + 2], 16) for k in (1, 3, 5)])

    def at(axes, x: float, y: float) -> bool:
        """Say whether the curve's colour is within two pixels of the place."""
        column, up = axes.transData.transform((x, y)) * 150 / figure.dpi
        row = picture.shape[0] - round(up)
        near = picture[row - 2 : row + 3, round(column) - 2 : round(column) + 3].astype(int)
        return bool((np.abs(near - blue).sum(-1) < 30).any())

    roc, pr = figure.axes
    assert at(roc, 0.0, 0.25)  # one of two found before the first false alarm
    assert at(roc, 0.6, 0.5)  # then both false alarms
    assert at(roc, 1.0, 0.75)
    assert not at(roc, 0.6, 0.8)
    assert not at(roc, 0.6, 0.3)
    assert at(pr, 0.3, 1.0)
    assert at(pr, 0.75, 0.5)
    assert not at(pr, 0.75, 0.75)
    for border in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (border == 255).all()


def test_a_run_writes_both_pictures_and_the_places(tmp_path):
    path = measured(tmp_path, Embedding(), good=6, bad=5)
    assert sorted(file.name for file in (path / "figures").iterdir()) == ["roc_pr.png", "tsne.csv", "tsne.png"]
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
        assert [one[key] for key in ("path", "defect", "label")] == [other[key] for key in ("path", "defect", "label")]
    assert np.isfinite([[float(row["x"]), float(row["y"])] for row in found]).all()


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


def blobs(count: int, features: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return three kinds of float32 vectors, five standard deviations apart, and their kinds."""
    rng, kind = np.random.default_rng(2), np.arange(count) % 3
    return (rng.normal(size=(count, features)) + 5 * np.eye(features)[kind]).astype(np.float32), kind


def test_kinds_that_lie_apart_stay_apart():
    embedding, kind = blobs(90)
    places = tsne(embedding)
    distance = cdist(places, places) + np.diag(np.full(90, np.inf))
    assert (kind[distance.argmin(1)] == kind).mean() > 0.95
    assert trustworthiness(embedding, places) > 0.75  # 0.5 for places drawn by lot


def test_the_places_depend_on_no_number_of_threads():
    embedding, _ = blobs(40)
    runs = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            runs.append(tsne(embedding))
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize(
    "embedding",
    [
        np.full((7, 12), 0.1, np.float32),
        np.zeros((5, 3), np.float32),
        np.arange(6, dtype=np.float32)[:, None],
        np.repeat(np.eye(3, 20, dtype=np.float32) * 1e30, 3, axis=0),
        blobs(5)[0] * np.float32(1e-20),
    ],
    ids=["constant", "zero", "one number", "copies, huge", "the fewest, tiny"],
)
def test_odd_embeddings_have_finite_places(embedding):
    places = tsne(embedding)
    assert places.shape == (len(embedding), 2)
    assert np.isfinite(places).all()
    assert (np.ptp(places) > 0) == (np.ptp(embedding, axis=0).max() > 0)


def test_each_kind_has_a_look_and_its_count_whatever_its_name():
    names = ["good"] * 3 + ["_dent"] * 2 + ["$a_^$"] + [f"defect {k}" for k in range(9)] + ["wM" * 150]
    records = [ImageRecord(Path(f"{k}.png"), None, name != "good", name) for k, name in enumerate(names)]
    points = np.random.default_rng(0).normal(size=(len(names), 2))
    figure = scatter_figure(points, records, TITLE)
    (axes,) = figure.axes
    shown = words(axes)
    assert shown[:3] == ["3 normal", "1 $a_^$", "2 _dent"]
    assert len(shown) == len(axes.collections) == len(set(names))
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections}
    assert len(looks) == len(set(names))
    np.testing.assert_array_equal(axes.collections[2].get_offsets(), points[3:5])
    picture = rendered(figure)
    assert (picture[:, -4:] == 255).all()
