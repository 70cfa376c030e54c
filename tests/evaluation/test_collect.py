"""What a test gathers, against scoring every image by itself; and the numbers that are made of it."""

from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomaly_lab.errors import ConfigError
from anomaly_lab.evaluation import collect
from anomaly_lab.evaluation.evaluate import evaluate
from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.evaluation.metrics.histogram import HistogramCurves
from anomaly_lab.evaluation.threshold import threshold
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction
from tests.support.data_modules import SIZE, mvtec, read, ready
from tests.support.evaluation import collected, settings
from tests.support.reference_metrics import area_to, pro_points
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")


class Brightness(AnomalyMethod):
    """Scores an image by its brightest pixel, each image alone, and embeds it by its mean colour."""

    printed: ClassVar = {"image_auc": "image_auroc", "other": "no such metric"}

    def forward(self, image):
        anomaly_map = image.mean(1)
        return Prediction(anomaly_map, anomaly_map.amax((1, 2)))

    def training_step(self, batch, batch_idx):
        """Learn nothing."""

    def embed(self, image):
        return image.mean((2, 3)).half()

    def latents(self, image):
        return {"darkest": image.amin((2, 3)).double()}


class Coarse(Brightness):
    """Has a map that means nothing, and no embedding."""

    localises = False

    def embed(self, image):
        return None


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=8, good=4, bad=5)


def by_hand(records) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps and scores of the files, one by one."""
    maps = np.stack([read(record.image).astype(np.float32).mean(2) / 255 for record in records])
    return maps, maps.max((1, 2))


def truth(data) -> np.ndarray:
    return np.stack([np.zeros(SIZE, bool) if r.mask is None else read(r.mask) > 0 for r in data.test.records])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_rows_are_those_of_the_records(tree, tmp_path, batch_size):
    data = ready(mvtec(tree, batch_size=batch_size, holdout=0.25))
    scored, _ = collected(tmp_path, data, Brightness(), settings(save_maps=True, overlays=1))
    maps, scores = by_hand(data.test.records)
    assert scored.records == data.test.records
    assert scored.labels.tolist() == [False] * 4 + [True] * 5
    np.testing.assert_allclose(scored.maps, maps, atol=1e-6)
    np.testing.assert_allclose(scored.scores, scores, atol=1e-6)
    np.testing.assert_allclose(scored.held_out, by_hand(data.normal.records)[1], atol=1e-6)
    assert len(scored.held_out) == 2
    means = np.stack([read(record.image).mean((0, 1)) / 255 for record in data.test.records])
    np.testing.assert_allclose(scored.embedding, means, atol=1e-3)
    darkest = np.stack([read(record.image).min((0, 1)) / 255 for record in data.test.records])
    np.testing.assert_allclose(scored.latents["darkest"], darkest, atol=1e-6)
    assert scored.latents.keys() == {"darkest"}
    assert scored.latents["darkest"].dtype == np.float32
    assert scored.scores.dtype == scored.maps.dtype == scored.embedding.dtype == np.float32


def test_only_what_is_asked_for_is_kept(tree, tmp_path):
    scored, _ = collected(tmp_path, ready(mvtec(tree)), Brightness(), settings())
    assert scored.maps is scored.embedding is None
    assert not scored.latents
    assert scored.held_out.shape == (0,)
    blind, _ = collected(tmp_path, ready(mvtec(tree)), Coarse(), settings(overlays=1))
    assert blind.pixels is blind.embedding is None
    assert blind.latents["darkest"].shape == (9, 3)  # which stand alone, too


def test_the_numbers_are_those_of_the_scores(tree, tmp_path):
    data, how = ready(mvtec(tree, holdout=0.25)), settings(bootstrap=50)
    scored, _ = collected(tmp_path, data, Brightness(), how)
    found = evaluate(scored, how, Brightness.printed)
    maps, scores = by_hand(data.test.records)
    labels, masks = scored.labels, truth(data)
    expected = {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "image_auc": roc_auc_score(labels, scores),
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_ap": average_precision_score(masks.ravel(), maps.ravel()),
        "pixel_aupro": area_to(0.3, pro_points(maps, masks)),
        **threshold(scored.held_out, 0.05, scores, labels),
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert {"image_auroc_low", "image_ap_high"} <= found.metrics.keys()
    assert "other" not in found.metrics
    assert found.curves.keys() == {
        *(f"image_{name}" for name in ("fpr", "tpr", "precision")),
        *(f"pixel_{name}" for name in ("fpr", "tpr", "precision", "overlap")),
    }


def test_what_cannot_be_computed_is_absent_and_said(tmp_path, caplog):
    data, how = ready(mvtec(mvtec_tree(tmp_path / "tree", bad=0))), settings(bootstrap=50)
    found = evaluate(collected(tmp_path, data, Brightness(), how)[0], how, Brightness.printed)
    assert found.metrics == found.curves == {}
    assert "no image metrics: all test images are of one kind" in caplog.text


@pytest.mark.parametrize("changes", [{"fit": "pad", "image_size": 48}, {"center_crop": 24}])
def test_only_pixels_that_show_the_photograph_count(tree, tmp_path, changes):
    data = ready(mvtec(tree, **changes))
    (pixels,) = (collected(tmp_path, data, Brightness(), settings())[0].pixels,)
    rows, columns = (slice(0, 40), slice(0, 48)) if "fit" in changes else (slice(8, 32), slice(12, 36))
    maps, masks = by_hand(data.test.records)[0][:, rows, columns], truth(data)[:, rows, columns]
    assert pixels.thresholds()[:2].sum() == masks.size
    wanted = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixels.summary("pixel", 0.3)["pixel_auroc"] == pytest.approx(wanted, abs=1e-6)


def test_at_the_original_resolution_maps_go_back_to_the_masks(tree, tmp_path):
    data = ready(mvtec(tree, image_size=(20, 24)))
    scored, _ = collected(tmp_path, data, Brightness(), settings(resolution="original", save_maps=True))
    maps = torch.nn.functional.interpolate(torch.from_numpy(scored.maps)[None], SIZE, mode="bilinear")[
        0
    ].numpy()
    wanted = roc_auc_score(truth(data).ravel(), maps.ravel())
    assert scored.pixels.summary("pixel", 0.3)["pixel_auroc"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("changes", [{"image_size": (20, 24)}, {"image_size": 32, "fit": "pad"}])
def test_floored_masks_are_those_of_cv2_and_change_nothing_but_pixel_metrics(tree, tmp_path, changes):
    """As DRAEM's evaluation: cv2.resize of the mask, / 255, cast to uint8, pixel by pixel."""
    data = ready(mvtec(tree, **changes))
    scored, _ = collected(tmp_path, data, Brightness(), settings(mask_resize="floor", save_maps=True))
    labels, values = [], []
    for row, record in enumerate(data.test.records):
        box = data.test.placements[row].target
        values.append(scored.maps[row][box.slices].ravel())
        mask = np.zeros(SIZE, np.uint8) if record.mask is None else read(record.mask).astype(np.uint8)
        soft = cv2.resize(mask, (box.width, box.height), interpolation=cv2.INTER_LINEAR) / 255.0
        labels += [int(value) for value in soft.ravel()]
    assert 0 < sum(labels) < data.test.masks.sum()
    wanted = roc_auc_score(labels, np.concatenate(values))
    assert scored.pixels.summary("pixel", 0.3)["pixel_auroc"] == pytest.approx(wanted, abs=1e-6)
    plain, _ = collected(tmp_path, data, Brightness(), settings(save_maps=True))
    assert np.array_equal(plain.scores, scored.scores)
    assert np.array_equal(plain.maps, scored.maps)


@pytest.mark.parametrize("tolerance", [-1.0, 1.0])
def test_a_large_test_set_is_streamed_and_sorted_only_where_that_is_too_coarse(
    tree, tmp_path, monkeypatch, caplog, tolerance
):
    monkeypatch.setattr(collect, "FEW_PIXELS", 0)
    monkeypatch.setattr(collect, "TOLERANCE", tolerance)
    data, method = ready(mvtec(tree)), Brightness()
    sizes = []
    method.register_forward_hook(lambda _, arguments, out: sizes.append(len(out.score)))
    scored, _ = collected(tmp_path, data, method, settings())
    assert isinstance(scored.pixels, HistogramCurves if tolerance > 0 else ExactCurves)
    assert ("the test set is scored again" in caplog.text) == (tolerance < 0)
    assert sum(sizes) == 8 + 9 + (0 if tolerance > 0 else 9)  # the centring images, the test set, and again
    wanted = roc_auc_score(truth(data).ravel(), by_hand(data.test.records)[0].ravel())
    assert scored.pixels.summary("pixel", 0.3)["pixel_auroc"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"resolution": "original", "mask_resize": "floor"}, "mask_resize"),
        ({"fpr_limit": 0.0}, "fpr_limit"),
        ({"fpr_limit": 1.1}, "fpr_limit"),
        ({"target_fpr": 0.0}, "target_fpr"),
        ({"target_fpr": 1.0}, "target_fpr"),
        ({"bootstrap": -1}, "bootstrap"),
        ({"overlays": -1}, "overlays"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, key):
    with pytest.raises(ConfigError, match=rf"^evaluation\..*{key}=.*: give"):
        settings(**changes)
