"""The curves of a run: their lines against scikit-learn, their pixels where they should be."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.spatial.distance import cdist
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from anomaly_lab.evaluation.metrics.curves import ExactCurves
from anomaly_lab.pictures.figures import COLOURS, curves_figure, operating_points
from tests.support.pictures import rendered, words

TITLE = "nearest / mvtec / part / run-01234567-seed0"


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


def away(points: np.ndarray, path: np.ndarray) -> float:
    """Return how far the farthest of (N, 2) points lies from the straight lines of an (M, 2) path."""
    start, step = path[:-1], np.diff(path, axis=0)
    share = ((points[:, None] - start) * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * step
    return float(np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1).max())


def test_the_drawn_curves_are_scikit_learns():
    score, label = scored()
    roc, pr = curves_figure(*gathered(score, label), TITLE, 0.3).axes
    drawn, _ = line(roc, COLOURS["image"])
    theirs = np.stack(roc_curve(label, score, drop_intermediate=False)[:2], 1)
    assert away(theirs, drawn) < 1e-12
    assert cdist(drawn, theirs).min(axis=1).max() < 1e-12
    assert trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(roc_auc_score(label, score))
    drawn, steps = line(pr, COLOURS["image"])
    precision, recall, _ = precision_recall_curve(label, score)
    assert cdist(drawn, np.stack([recall, precision], 1)).min(axis=1).max() < 1e-12
    assert steps.get_drawstyle() == "steps-pre"
    area = (np.diff(drawn[:, 0]) * drawn[1:, 1]).sum()
    assert area == pytest.approx(average_precision_score(label, score))
    assert words(roc) == [f"image AUROC {roc_auc_score(label, score):.3f}", "chance"]
    assert words(pr) == [
        f"image AP {average_precision_score(label, score):.3f}",
        f"chance: image {label.mean():.3g}",
    ]


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
    figure = curves_figure(curves, metrics, TITLE, 0.3)
    roc, pr, pro = figure.axes
    assert figure.get_suptitle() == TITLE
    assert words(roc)[0].endswith("(95 %: 0.123 to 0.900)")
    assert words(roc)[1] == f"pixel AUROC {roc_auc_score(mask.ravel(), noise.ravel()):.3f}"
    assert words(pr)[-1] == f"chance: image {label.mean():.3g}, pixel {mask.mean():.3g}"
    assert words(pro)[-1] == "AUPRO counts up to 0.3"
    assert [one.get_xdata() for one in pro.lines if one.get_linestyle() == ":"] == [[0.3, 0.3]]
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
    roc, pr = curves_figure(curves, metrics, TITLE, 0.3).axes
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
    figure = curves_figure(curves, metrics, TITLE, 0.3)
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
