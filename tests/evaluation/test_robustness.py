"""The poison protocol: its numbers against a loop and scikit-learn, its copies, its files, and its errors."""

import csv

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomaly_lab.data.augment.hierarchical import FAMILIES, poisoned
from anomaly_lab.evaluation.definitions import PROTOCOLS, VERSIONS, current, versions_of
from anomaly_lab.evaluation.robustness import copied
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.nearest import Nearest
from anomaly_lab.types import Prediction
from tests.support.data_modules import SIZE, mvtec, ready
from tests.support.evaluation import evaluated, settings
from tests.support.trees import mvtec_tree

SEVERITIES = (1, 2, 3)
CELLS = [(family, severity) for family in FAMILIES for severity in SEVERITIES]
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")


class Spread(AnomalyMethod):
    """Scores an image by its standard deviation; each image alone, whatever the batch."""

    def forward(self, image):
        return Prediction(image.mean(1), image.double().std((1, 2, 3)).float())

    def training_step(self, batch, batch_idx):
        """Learn nothing."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, good=6, bad=5)


def nearest(data):
    method = Nearest()
    method.bank_ = torch.from_numpy(data.train.images.copy()).permute(0, 3, 1, 2) / 255
    return method


def measured(path, data, method):
    """Test as a run does, with poison and without pictures; return the metrics."""
    return evaluated(path, data, method, settings(poison=True)).metrics()


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def by_hand(data, method, family, severity):
    """Score the copies one by one."""
    scores = []
    for row, image in enumerate(data.test.images):
        generator = np.random.default_rng((4, FAMILIES.index(family), row))
        copy = poisoned(image, family, severity, generator).astype(np.float32) / 255
        with torch.no_grad():
            scores.append(method(torch.from_numpy(copy).permute(2, 0, 1)[None]).score.item())
    return scores


@pytest.mark.parametrize("make", [nearest, lambda data: Spread()], ids=["nearest", "spread"])
def test_numbers_are_those_of_a_loop(tree, tmp_path, make):
    data = ready(mvtec(tree))
    method = make(data)
    metrics = measured(tmp_path, data, method)
    labels = [record.label for record in data.test.records]
    aurocs, precisions = [], []
    kept = table(tmp_path / "poison_predictions.csv")
    for family, severity in CELLS:
        scores = by_hand(data, method, family, severity)
        rows = [row for row in kept if (row["family"], row["severity"]) == (family, str(severity))]
        assert [row["path"] for row in rows] == [record.image.as_posix() for record in data.test.records]
        assert [row["label"] for row in rows] == [str(int(label)) for label in labels]
        np.testing.assert_allclose([float(row["score"]) for row in rows], scores, rtol=1e-5)
        aurocs.append(roc_auc_score(labels, scores))
        precisions.append(average_precision_score(labels, scores))
        assert metrics[f"poison_{family}_{severity}_image_auroc"] == pytest.approx(aurocs[-1], abs=1e-12)
        assert metrics[f"poison_{family}_{severity}_image_ap"] == pytest.approx(precisions[-1], abs=1e-12)
    assert len(kept) == len(CELLS) * len(labels)
    assert metrics["poisoned_image_auroc"] == pytest.approx(np.mean(aurocs), abs=1e-12)
    assert metrics["poisoned_image_ap"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert len(set(aurocs)) > 1


def test_table_has_the_clean_row_first_and_evaluations_metrics_stay(tree, tmp_path):
    data = ready(mvtec(tree))
    metrics = measured(tmp_path, data, Spread())
    rows = table(tmp_path / "poison.csv")
    assert list(rows[0]) == ["family", "severity", "image_auroc", "image_ap"]
    assert [(row["family"], row["severity"]) for row in rows] == [
        ("clean", "0"),
        *((f, str(s)) for f, s in CELLS),
    ]
    scores = [float(row["score"]) for row in table(tmp_path / "predictions.csv")]
    labels = [record.label for record in data.test.records]
    assert float(rows[0]["image_auroc"]) == pytest.approx(roc_auc_score(labels, scores))
    assert float(rows[0]["image_auroc"]) == metrics["image_auroc"]
    for row in rows[1:]:
        for name in ("image_auroc", "image_ap"):
            assert float(row[name]) == metrics[f"poison_{row['family']}_{row['severity']}_{name}"]
    assert {"image_auroc", "image_ap", "pixel_auroc"} <= metrics.keys()


def test_scores_move_away_from_the_clean_ones_with_severity(tmp_path):
    data = ready(mvtec(mvtec_tree(tmp_path / "tree", train=2, good=30, bad=2)))
    measured(tmp_path / "run", data, nearest(data))
    rows = table(tmp_path / "run" / "poison_predictions.csv")
    clean = [
        float(row["score"]) for row in table(tmp_path / "run" / "predictions.csv") if row["label"] == "0"
    ]
    for family in ("photometry", "degradation"):
        normal = [
            np.mean(
                [
                    float(r["score"])
                    for r in rows
                    if (r["family"], r["severity"], r["label"]) == (family, s, "0")
                ]
            )
            for s in "123"
        ]
        assert np.mean(clean) < normal[1] < normal[2]
        assert normal[0] < normal[1]


def test_every_method_seed_and_batch_size_sees_the_same_copies(tree, tmp_path):
    seen = []
    for name, make, seed, batch_size in (("a", nearest, 0, 4), ("b", lambda data: Spread(), 5, 3)):
        L.seed_everything(seed, verbose=False)
        data = ready(mvtec(tree, seed=seed, batch_size=batch_size))
        method, images = make(data), []
        method.register_forward_pre_hook(
            lambda _, arguments, images=images: images.append(arguments[0].clone())
        )
        measured(tmp_path / name, data, method)
        seen.append(torch.cat(images)[-len(CELLS) * len(data.test.records) :])
    assert torch.equal(*seen)
    copies = seen[0].reshape(len(CELLS), len(data.test.records), -1)
    assert len(copies.flatten(0, 1).unique(dim=0)) == len(CELLS) * len(data.test.records)
    np.testing.assert_array_equal(  # cell 5 is photometry at severity 3
        copied(data.test.images[2], "photometry", 3, 2),
        (copies[5, 2].reshape(3, *SIZE) * 255).round().permute(1, 2, 0),
    )


def test_labels_are_not_looked_at(tree, tmp_path):
    data = ready(mvtec(tree))
    metrics = measured(tmp_path / "as they are", data, Spread())
    flipped = [record._replace(label=not record.label) for record in data.test.records]
    data.test = data.test._replace(records=flipped)
    other = measured(tmp_path / "flipped", data, Spread())
    names = [f"poison_{family}_{severity}_image_auroc" for family, severity in CELLS]
    assert [other[name] for name in names] == pytest.approx([1 - metrics[name] for name in names])


def test_which_copies_they_were_is_kept_with_the_numbers():
    assert versions_of({"image_auroc": 0.5}) == {"image_auroc": 1}
    found = versions_of({"image_auroc": 0.5, "poisoned_image_auroc": 0.5, "poison_geometry_1_image_ap": 0.5})
    assert found == {"image_auroc": 1, "poison": 2}
    assert (current("poison"), current("unheard_of")) == (2, 1)
    assert not PROTOCOLS.keys() & VERSIONS.keys()


def test_test_images_stay_as_they_are(tree, tmp_path):
    data = ready(mvtec(tree))
    before = data.test.images.copy()
    data.test.images.setflags(write=False)
    measured(tmp_path, data, Spread())
    assert np.array_equal(data.test.images, before)


def test_one_label_alone_is_said_and_gives_no_keys(tree, tmp_path, caplog):
    data = ready(mvtec(tree))
    normal = [row for row, record in enumerate(data.test.records) if not record.label]
    records = [data.test.records[row] for row in normal]
    data.test = data.test._replace(
        records=records, images=data.test.images[normal], placements=data.test.placements[: len(normal)]
    )
    metrics = measured(tmp_path, data, Spread())
    assert not [name for name in metrics if "poison" in name]
    assert not list(tmp_path.rglob("poison*"))
    assert "no poisoned metrics" in caplog.text
