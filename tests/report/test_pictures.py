"""Pictures on the page: rows whole or not at all, and each told of its data set."""

import re

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.report.chosen import chosen
from anomaly_lab.report.figures import of_runs
from anomaly_lab.report.found import found
from anomaly_lab.report.overlays import Album, side_by_side, verdict
from tests.report.folders import kept


def pictured(root, place, images, side=64):
    """Write a run with pictures of so many test images, each a noise that no JPEG makes small."""
    folder = kept(root, place, image_auroc=0.5) / "maps"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    for number in range(images):
        Image.fromarray(noise).save(folder / f"{number:02}-lowest-defective-crack-{number:03}.png")
    return folder


def rows(root, album):
    return [(image, len(shown)) for _, _, image, shown in side_by_side(chosen(found(root).runs), album)]


def test_an_image_is_shown_by_all_methods_or_not_at_all_also_where_bytes_run_out(tmp_path):
    for method in ("padim", "nearest"):
        pictured(tmp_path, f"{method}/own/a", 6)
    one = Album()
    assert rows(tmp_path, one) == [(f"crack-{number:03}", 2) for number in range(6)]
    each = (Album().room - one.room) // 12
    album = Album(room=5 * each)
    assert rows(tmp_path, album) == [("crack-000", 2), ("crack-001", 2)]
    assert album.without == 8


def test_a_row_of_one_readable_picture_is_none(tmp_path):
    pictured(tmp_path, "padim/own/a", 1)
    (pictured(tmp_path, "nearest/own/a", 1) / "00-lowest-defective-crack-000.png").write_text("none")
    album = Album()
    assert rows(tmp_path, album) == []
    (line,) = album.said
    assert line.endswith("crack-000.png: cannot be shown (UnidentifiedImageError)")


def test_best_and_worst_of_two_data_sets_stand_apart_and_follow_the_filter(tmp_path):
    for data in ("mvtec", "visa"):
        pictured(tmp_path, f"draem/{data}/same", 1)
    parts = {name: "".join(parts) for name, _, parts in of_runs(found(tmp_path).runs, {}, [])}
    assert re.findall("<h3>(.*?)</h3>", parts["pictures"]) == ["mvtec: draem", "visa: draem"]
    assert re.findall('<div data-f-data="(.*?)"', parts["pictures"]) == ["mvtec", "visa"]
    assert 'alt="draem on visa, same, crack-000' in parts["pictures"]


LOWEST, GOOD, HIGHEST = "lowest-defective", "highest-good", "highest-defective"


@pytest.mark.parametrize(
    ("recall", "alarms", "words"),
    [
        (1.0, 0.0, ("", "", "hit")),
        (0.9, 0.1, ("missed", "false alarm", "hit")),
        (0.0, 0.0, ("missed", "", "missed")),
        (None, None, ("", "", "")),
        (1.0, None, ("", "", "hit")),
    ],
)
def test_what_a_threshold_makes_of_an_image_is_said_only_by_it(recall, alarms, words):
    """The shares of images above it tell on which side the lowest and the highest score lie."""
    found_there = {"image_recall_at_threshold": recall, "image_fpr_at_threshold": alarms}
    metrics = {name: value for name, value in found_there.items() if value is not None}
    assert tuple(verdict(kind, metrics) for kind in (LOWEST, GOOD, HIGHEST)) == words


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({}, ["", "", ""]),
        ({"image_recall_at_threshold": 1.0, "image_fpr_at_threshold": 0.0}, ["", "", "hit: "]),
        (
            {"image_recall_at_threshold": 0.5, "image_fpr_at_threshold": 0.5},
            ["missed: ", "false alarm: ", "hit: "],
        ),
    ],
)
def test_best_and_worst_are_called_what_the_picture_shows(tmp_path, metrics, words):
    folder = kept(tmp_path, "padim/own/a", image_auroc=0.9, **metrics) / "maps"
    folder.mkdir()
    for number, kind in enumerate((LOWEST, GOOD, HIGHEST)):
        Image.new("RGB", (8, 8)).save(folder / f"{number:02}-{kind}-x-1.png")
    parts = {name: "".join(parts) for name, _, parts in of_runs(found(tmp_path).runs, {}, [])}
    said = ("the defect of the lowest", "the good image of the highest", "the defect of the highest")
    assert re.findall("<figcaption>(.*?)</figcaption>", parts["pictures"]) == [
        f"{word}{what} score; a: x-1" for word, what in zip(words, said, strict=True)
    ]
