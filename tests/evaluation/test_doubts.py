"""What makes numbers doubtful: each line where it belongs, and none where all is well."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from anomaly_lab.data.decoding import grey_of
from anomaly_lab.evaluation.doubts import (
    Observed,
    Sameness,
    of_files,
    of_pictures,
    of_scores,
    of_threshold,
)
from anomaly_lab.types import ImageRecord

LABELS = np.array([False] * 20 + [True] * 30)


def image(auroc: float, low: float, high: float) -> dict[str, float]:
    return {"image_auroc": auroc, "image_auroc_low": low, "image_auroc_high": high}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (image(0.9, 0.8, 0.97), None),
        (image(0.4, 0.3, 0.55), None),  # chance alone may do it
        (image(0.3, 0.2, 0.45), "defective images score below normal ones"),
        (image(1.0, 1.0, 1.0), "20 normal and 30 defective images are all told apart"),
        ({"image_auroc": 0.9}, None),  # without resamples
        ({}, None),
    ],
)
def test_of_scores(metrics, said):
    lines = list(of_scores(np.arange(50.0), LABELS, metrics))
    assert [said in line for line in lines] == ([True] if said else [])


def test_equal_scores_tell_nothing_apart():
    (line,) = of_scores(np.full(50, 0.25), LABELS, {})
    assert line == "all 50 test images have the score 0.25: nothing is told apart"
    assert not list(of_scores(np.array([0.25]), LABELS[:1], {}))


@pytest.mark.parametrize(("held_out", "doubtful"), [(0, False), (6, True), (18, True), (19, False)])
def test_a_threshold_from_few_images_is_doubtful(held_out, doubtful):
    lines = list(of_threshold(held_out, 0.05, 40, {}))
    assert len(lines) == doubtful
    if doubtful:
        assert f"about {100 / (held_out + 1):.0f} % of good parts" in lines[0]


@pytest.mark.parametrize("alarms", range(0, 41, 2))
def test_false_alarms_are_doubtful_where_chance_gives_them_once_in_a_hundred(alarms):
    lines = list(of_threshold(40, 0.05, 40, {"image_fpr_at_threshold": alarms / 40}))
    assert len(lines) == (binom.sf(alarms - 1, 40, 0.05) < 0.01)
    assert all(f"false alarms {alarms / 40:.2f}" in line for line in lines)


def test_few_held_out_images_excuse_the_alarms_that_they_explain():
    metrics = {"image_fpr_at_threshold": 0.2}
    assert len(list(of_threshold(4, 0.05, 100, metrics))) == 1  # that they are few; 1 in 5 is what they give


@pytest.mark.parametrize(
    ("offset", "said"),
    [(3, None), (-3, None), (20, "20 grey levels brighter"), (-20, "20 grey levels darker")],
)
def test_another_light_is_seen(offset, said):
    rng = np.random.default_rng(0)
    training = rng.normal(100, 4, 50)
    training += 100 - training.mean()
    seen = Observed(training_grey=training, normal_grey=np.full(9, 100.0 + offset))
    assert [said in line for line in of_pictures(seen)] == ([True] if said else [])
    wide = Observed(training_grey=rng.normal(100, 40, 50), normal_grey=np.full(9, 100.0 + offset))
    assert not list(of_pictures(wide))


def test_greys_are_the_means_of_images_and_what_a_method_says_is_passed_on():
    images = np.stack([np.full((8, 12, 3), value, np.uint8) for value in (0, 7, 255)])
    assert [grey_of(image) for image in images] == [0, 7, 255]
    assert list(of_pictures(Observed(of_method=("a", "b")))) == ["a", "b"]


@pytest.mark.parametrize("level", [0, 1e4])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_sameness_is_the_share_of_variance_that_the_mean_map_has(share, level):
    rng = np.random.default_rng(1)
    common, own = rng.standard_normal((1, 16, 16)), rng.standard_normal((12, 16, 16))
    maps = np.sqrt(share) * common + np.sqrt(1 - share) * own + level
    state = Sameness()
    for part in np.array_split(maps, 5):
        state.update(part.astype(np.float64))
    wanted = maps.mean(axis=0).var() / maps.var()
    assert state.compute() == pytest.approx(wanted, rel=1e-6)
    assert len(list(of_pictures(Observed(sameness=state.compute())))) == (wanted > 0.99)


def test_sameness_of_one_map_is_unknown_and_of_a_constant_it_is_all():
    state = Sameness()
    assert state.compute() is None
    state.update(np.ones((1, 4, 4), np.float32))
    assert state.compute() is None
    state.update(np.ones((2, 4, 4), np.float32))
    assert state.compute() == 1


@pytest.mark.parametrize(
    ("good", "bad", "training", "said"),
    [
        ("a.png b.PNG", "c.png", 20, []),
        ("a.jpg b.png", "c.png", 20, []),
        ("a.jpg b.jpeg", "c.png", 20, ["normal test images are .jpeg, .jpg files, defective ones .png: "]),
        ("a.jpg", "", 9, ["only 9 images to train on"]),
        ("a.png", "b.png", 0, []),  # unknown
    ],
)
def test_of_files(good, bad, training, said):
    kinds = ((good, False), (bad, True))
    records = [ImageRecord(Path(n), None, label, "x") for names, label in kinds for n in names.split()]
    lines = list(of_files(records, training))
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))
