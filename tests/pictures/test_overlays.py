"""Pictures of single test images: which are chosen, and what every panel of them shows."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anomaly_lab.data.augment.hierarchical import FAMILIES
from anomaly_lab.evaluation.robustness import SEVERITIES, copied
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.pictures.overlays import choose
from anomaly_lab.pictures.sheets import colour, heated, outline, uint8
from anomaly_lab.types import Prediction
from tests.support.data_modules import SIZE, mvtec, ready
from tests.support.evaluation import evaluated, settings
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")
TALL, WIDE = 224, round(224 * SIZE[1] / SIZE[0])  # of a panel
MISS, FALSE, HIT = "lowest-defective", "highest-good", "highest-defective"


class Bright(AnomalyMethod):
    """Scores an image by its brightest pixel, and shows it inverted."""

    def forward(self, image):
        anomaly_map = image.mean(1)
        return Prediction(anomaly_map, anomaly_map.amax((1, 2)))

    def training_step(self, batch, batch_idx):
        """Learn nothing."""

    def panels(self, image):
        return {"inverted": 1 - image, "half": image.mean(1) / 2}


class Vague(Bright):
    """Has a map that means nothing."""

    localises = False

    def panels(self, image):
        return {}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, good=4, bad=6)


def picture(file: Path) -> np.ndarray:
    """Return the RGB pixels of a written picture."""
    return cv2.imread(str(file))[..., ::-1]


def panel(sheet: np.ndarray, column: int, line: int = 0) -> np.ndarray:
    """Return the pixels of one panel, without title and name."""
    top, left = line * (48 + TALL) + 48, column * (WIDE + 6) + 3
    return sheet[top : top + TALL, left : left + WIDE]


def enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (WIDE, TALL), interpolation=cv2.INTER_NEAREST)


def test_misses_come_first_then_hits_and_no_row_twice():
    scores = np.array([5.0, 1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0])
    labels = np.array([True, True, True, True, False, False, False, False])
    # By score the anomalous rows are 1, 3, 0, 2, the normal ones, from the highest down, 4, 6, 7, 5.
    assert choose(scores, labels, 4) == [(MISS, 1), (FALSE, 4), (HIT, 2), (HIT, 0)]
    assert choose(scores, labels, 6) == [(MISS, 1), (FALSE, 4), (MISS, 3), (HIT, 2), (HIT, 0)]
    assert choose(scores, labels, 1) == [(HIT, 2)]
    assert choose(scores, labels, 0) == []


@pytest.mark.parametrize("kind", [True, False])
def test_one_kind_alone_is_shown_too(kind):
    scores = np.array([3.0, 1.0, 2.0, 4.0])
    found = choose(scores, np.full(4, kind), 4)
    assert found == ([(MISS, 1), (MISS, 2), (HIT, 3), (HIT, 0)] if kind else [(FALSE, 3), (FALSE, 0)])


def test_every_panel_shows_what_its_name_says(tree, tmp_path):
    data = ready(mvtec(tree))
    evaluated(tmp_path, data, Bright(), settings(overlays=4))
    scores = data.test.images.mean(3).max((1, 2))
    labels = np.array([record.label for record in data.test.records])
    chosen = choose(scores, labels, 4)
    names = []
    for position, (kind, row) in enumerate(chosen):
        record = data.test.records[row]
        names.append(f"{position:02d}-{kind}-{record.defect}-{record.image.stem}.png")
    found = sorted((tmp_path / "maps").iterdir())
    assert [file.name for file in found] == names
    rows = [row for _, row in chosen]
    images = torch.from_numpy(data.test.images[rows]).permute(0, 3, 1, 2) / 255
    maps = images.mean(1)
    scale = (maps.median().item(), maps.max().item())
    for position, (file, row) in enumerate(zip(found, rows, strict=True)):
        sheet = picture(file)
        assert sheet.shape == (48 + TALL, 6 * (WIDE + 6), 3)
        panels = [
            data.test.images[row],
            uint8(1 - images[position]),
            colour(maps[position].numpy() / 2, *scale),
            colour(maps[position].numpy(), *scale),
            heated(data.test.images[row], maps[position].numpy(), *scale),
            outline(data.test.images[row], data.test.masks[row]),
        ]
        for column, shown in enumerate(panels):
            assert np.abs(panel(sheet, column).astype(int) - enlarged(shown)).max() <= 1


def test_a_map_that_means_nothing_is_not_shown(tree, tmp_path):
    evaluated(tmp_path, ready(mvtec(tree)), Vague(), settings(overlays=1))
    (file,) = (tmp_path / "maps").iterdir()
    assert picture(file).shape == (48 + TALL, 2 * (WIDE + 6), 3)  # the image and its truth


def test_odd_names_make_plain_files(tmp_path):
    root = mvtec_tree(tmp_path / "tree", train=2, good=1, bad=1)
    (root / "part/test/scratch").rename(root / "part/test/kratzer größe 1")
    (root / "part/ground_truth/scratch").rename(root / "part/ground_truth/kratzer größe 1")
    evaluated(tmp_path / "run", ready(mvtec(root)), Bright(), settings(overlays=1))
    (file,) = (tmp_path / "run/maps").iterdir()
    assert file.name == "00-highest-defective-kratzer_größe_1-000.png"


def test_copies_are_those_of_the_first_normal_image(tree, tmp_path):
    data = ready(mvtec(tree))
    evaluated(tmp_path, data, Bright(), settings(poison=True, overlays=1))
    found = picture(tmp_path / "maps" / "poison.png")
    row = [record.label for record in data.test.records].index(False)
    image = data.test.images[row]
    assert found.shape == (3 * (26 + 22 + TALL), 4 * (WIDE + 6), 3)
    for line, family in enumerate(FAMILIES):
        shown = [image, *(copied(image, family, severity, row) for severity in SEVERITIES)]
        for column, one in enumerate(shown):
            assert np.array_equal(panel(found, column, line), enlarged(one))
