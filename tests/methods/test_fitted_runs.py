"""Runs of the methods on frozen features: what they share, what they keep, what a changed file means."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_lab
from anomaly_lab.backbones.weights import bundled
from anomaly_lab.data import decoding
from anomaly_lab.errors import ConfigError, RunError
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree

SMALL = ("data.image_size=64", "evaluation.overlays=0", "evaluation.bootstrap=0")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=10, good=4, bad=4, size=(64, 64))


def predictions(path):
    with (path / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_k_fits_once_and_decodes_once(tree, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(decoding, "LAST", {})
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *given: decoded.append(1) or decode(*given))
    scores = []
    for count in (1, 2, 3):
        k = f"model.estimator.neighbors={count}"
        _, path = ran(tmp_path, "model=deep_knn_small", *on_tree(tree), *SMALL, k)
        scores.append([float(row["score"]) for row in predictions(path)])
        assert (path / "training.csv").exists() is (count == 1)
    assert len(decoded) == 4  # train, normal, test and anomalies, for all three cells
    assert scores[0] != scores[1] != scores[2]


def test_another_file_of_weights_under_the_same_name_is_told(tree, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(bundled(), file)
    given = ("model=deep_knn_small", *on_tree(tree), *SMALL, f"model.backbone.weights='{file}'")
    _, path = ran(tmp_path, *given)
    ran(tmp_path, *given)  # the same: skipped
    torch.save({key: value * 1.01 for key, value in bundled().items()}, file)
    with pytest.raises(RunError, match=r"weights changed \(\['[0-9a-f]{16}'\] in the finished run"):
        ran(tmp_path, *given)
    _, other = ran(tmp_path, *given, "tag=new")
    assert other != path
    assert not (other / "model.ckpt").samefile(path / "model.ckpt")
    file.unlink()
    assert anomaly_lab.load(path).predict([np.zeros((64, 64, 3), np.uint8)]).score.isfinite().all()


def test_the_run_keeps_the_backbone_that_it_was_fitted_with(tree, tmp_path):
    _, path = ran(tmp_path, "model=patchcore_small", *on_tree(tree), *SMALL)
    rows = predictions(path)
    loaded = anomaly_lab.load(path)
    scores = loaded.predict([np.array(Image.open(row["path"])) for row in rows]).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], rtol=1e-4)
    assert loaded.method.features.cache.limit == loaded.method.cache.limit == 0


def test_poison_is_asked_for_in_the_config_and_needs_no_training(tree, tmp_path):
    given = ("model=hit_milf_small", *on_tree(tree), *SMALL)
    given = (*given, "data.augment.copies=2", "model.estimator.restarts=1")
    clean, first = ran(tmp_path, *given)
    metrics, path = ran(tmp_path, *given, "evaluation.poison=true")
    assert (path / "model.ckpt").samefile(first / "model.ckpt")
    assert clean.items() <= metrics.items()
    cells = [
        metrics[f"poison_{family}_{s}_image_auroc"]
        for family in ("geometry", "photometry", "degradation")
        for s in (1, 2, 3)
    ]
    assert metrics["poisoned_image_auroc"] == pytest.approx(np.mean(cells))
    assert len((path / "poison.csv").read_text().splitlines()) == 11


def test_the_fit_sees_every_image_once_and_each_copy(tree, tmp_path):
    given = ("model=deep_knn_small", *on_tree(tree), *SMALL, "data.holdout=0")
    _, path = ran(tmp_path, *given, "tag=plain")
    target = "_target_:anomaly_lab.data.augment.hierarchical.HierarchicalTransformation"
    copies = f"{{{target},depth:1,copies:2,families:[geometry],flip:false}}"
    _, more = ran(tmp_path, *given, f"data.augment={copies}")
    states = [torch.load(run / "model.ckpt", weights_only=True)["state_dict"] for run in (path, more)]
    assert [len(state["estimator.bank_"]) for state in states] == [10, 30]


@pytest.mark.parametrize("change", ["trainer.max_epochs=2", "data.sampling=replacement"])
def test_a_fit_wants_each_image_once(tree, tmp_path, change):
    with pytest.raises(ConfigError, match=r"give trainer\.max_epochs=1 data\.sampling=shuffle"):
        ran(tmp_path, "model=padim_small", *on_tree(tree), *SMALL, change)
