"""Whole runs of the methods on frozen features: what they share, what they keep, what a changed file means."""

import csv
import inspect
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_lab
from anomaly_lab.data import base
from anomaly_lab.data.datasets import AddressedSampler, TrainDataset
from anomaly_lab.data.hierarchical import HierarchicalTransformation
from anomaly_lab.data.mvtec import MVTec
from anomaly_lab.data.registration import register, warped
from anomaly_lab.errors import ConfigError, DataError, RunError
from anomaly_lab.networks import bundled
from anomaly_lab.synthesis.none import NoSynthesis
from tests.data_modules import mvtec, ready
from tests.runs import on_tree, ran
from tests.trees import mvtec_tree

SMALL = ("data.image_size=64", "evaluation.overlays=0", "evaluation.bootstrap=0")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=10, good=4, bad=4, size=(64, 64))


def predictions(path):
    with (path / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_k_fits_once_and_decodes_once(tree, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(base, "LAST", {})
    monkeypatch.setattr(base, "decode", lambda *a, _decode=base.decode: decoded.append(1) or _decode(*a))
    scores = []
    for count in (1, 2, 3):
        _, path = ran(tmp_path, "model=deep_knn_small", *on_tree(tree), *SMALL, f"model.estimator.neighbors={count}")
        scores.append([float(row["score"]) for row in predictions(path)])
        assert (path / "training.csv").exists() is (count == 1)
    assert len(decoded) == 3  # train, normal and test, for all three cells
    assert scores[0] != scores[1] != scores[2]


def test_what_was_decoded_is_used_for_the_same_content_only(tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "copy")
    first, other_size = ready(mvtec(tree)), ready(mvtec(tree, image_size=32))
    assert other_size.train.images.shape[1] == 32
    image = copy / "part/train/good/003.png"
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    changed = ready(mvtec(copy))
    assert not np.array_equal(changed.train.images[3], first.train.images[3])
    np.testing.assert_array_equal(changed.train.images[4], first.train.images[4])
    assert changed.train.records[0].image.is_relative_to(copy)
    elsewhere = ready(mvtec(shutil.copytree(copy, tmp_path / "again")))
    assert elsewhere.train.images is changed.train.images
    assert elsewhere.test.records[0].image.is_relative_to(tmp_path / "again")


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
    assert loaded.method.backbone.cache.limit == 0


def test_poison_is_asked_for_in_the_config_and_needs_no_training(tree, tmp_path):
    given = ("model=hit_milf_small", *on_tree(tree), *SMALL, "data.augment.copies=2", "model.estimator.restarts=1")
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


def test_copies_come_beside_the_untouched_image():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    augment = HierarchicalTransformation(2, 3, ["photometry"], flip=False)
    dataset = TrainDataset(images, augment, NoSynthesis(), 0)
    draws = list(AddressedSampler(16, 0, "shuffle"))
    assert sorted(draw.row for draw in draws) == list(range(16))
    seen = {draw.row: dataset[draw].clean.permute(1, 2, 0).numpy() for draw in draws}
    for row in range(4):
        np.testing.assert_array_equal(seen[row], images[row])
        copies = [seen[row + 4 * copy] for copy in (1, 2, 3)]
        assert all(not np.array_equal(copy, images[row]) for copy in copies)
        assert not np.array_equal(copies[0], copies[1])


def test_the_fit_sees_every_image_once_and_each_copy(tree, tmp_path):
    _, path = ran(tmp_path, "model=deep_knn_small", *on_tree(tree), *SMALL, "data.holdout=0", "tag=plain")
    target = "_target_:anomaly_lab.data.hierarchical.HierarchicalTransformation"
    copies = f"{{{target},depth:1,copies:2,families:[geometry],flip:false}}"
    _, more = ran(tmp_path, "model=deep_knn_small", *on_tree(tree), *SMALL, "data.holdout=0", f"data.augment={copies}")
    banks = [torch.load(run / "model.ckpt", weights_only=True)["state_dict"]["estimator.bank_"] for run in (path, more)]
    assert [len(bank) for bank in banks] == [10, 30]


def part(angle: float) -> np.ndarray:
    """A bright L on grey, turned about the centre."""
    image = np.full((96, 96, 3), 60, np.uint8)
    image[25:70, 30:42] = 200
    image[58:70, 30:66] = 170
    return np.array(Image.fromarray(image).rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=(60, 60, 60)))


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
    given = (
        "model=variation",
        "data=mvtec",
        f"data.root='{tmp_path}/data'",
        "data.category=part",
        "data.image_size=96",
    )
    _, path = ran(tmp_path, *given, "data.register=true", "evaluation.overlays=0")
    rows = predictions(path)
    loaded = anomaly_lab.load(path)
    scores = loaded.predict([np.array(Image.open(row["path"])) for row in rows]).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], rtol=1e-4)
    turned = warped(part(100), register(part(100), plain.train.images[0]))
    assert np.abs(turned.astype(float) - part(0)).mean() < 3
    with pytest.raises(ConfigError, match=r"evaluation\.resolution: original does not go with data\.register"):
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


def test_photographs_of_unlike_sizes_cannot_be_registered(tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "copy")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(copy / "part/test/good/001.png")
    with pytest.raises(DataError, match=r"001\.png: has .*\(30, 40\).* wants photographs of one size"):
        ready(mvtec(copy, register=True))


def test_no_argument_of_a_data_set_has_a_default():
    """A field named like a method of the metaclass would silently take that as its default."""
    assert all(p.default is p.empty for p in inspect.signature(MVTec).parameters.values())


@pytest.mark.parametrize("change", ["trainer.max_epochs=2", "data.sampling=replacement"])
def test_a_fit_wants_each_image_once(tree, tmp_path, change):
    with pytest.raises(ConfigError, match=r"give trainer\.max_epochs=1 data\.sampling=shuffle"):
        ran(tmp_path, "model=padim_small", *on_tree(tree), *SMALL, change)
