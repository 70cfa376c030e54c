"""CPCAE-kNN: scores written out, folds that never saw their image, a fit after the last step."""

import csv
import shutil
from contextlib import nullcontext
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.knn import KNearest
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.methods.cpcae_knn import CpcaeKnn
from tests.support.features import NOTHING, extractor, noise
from tests.support.runs import composed, on_tree, ran
from tests.support.train_batches import unlabelled
from tests.support.training import told
from tests.support.trees import mvtec_tree

SIZE = 32
TRAIN = noise(0, 9, SIZE, SIZE)
TEST = noise(1, 4, SIZE, SIZE)
LARGE = 53  # of photographs that the autoencoder sees at SIZE
SMALL = ("model=cpcae_knn_small", "data.image_size=64", "trainer=debug", "evaluation.overlays=0")


@lru_cache
def backbone() -> FeatureExtractor:
    return extractor(weights="bundled", pool="max")


def made(residual: str = "abs", folds: int = 1) -> CpcaeKnn:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(SIZE, 16, 8, [4, 8], 6, "scalar", 1e-3, 9)
    return CpcaeKnn(autoencoder, backbone(), NOTHING, KNearest(3, "squared"), residual, folds, 1e-2)


class Trainer:
    """As much of Lightning's as the fit after the last step asks for."""

    def __init__(self, step: int) -> None:
        self.global_step = step
        self.precision_plugin = self

    @staticmethod
    def forward_context():
        return nullcontext()


def after(method: CpcaeKnn, step: int, train: Tensor = TRAIN) -> CpcaeKnn:
    """Return the method at the end of an epoch, after this step of seven."""
    told(method, steps=7, normals=[train[:5], train[5:]])._trainer = Trainer(step)
    method.on_train_epoch_end()
    return method


def fitted(method: CpcaeKnn, train: Tensor = TRAIN) -> CpcaeKnn:
    return after(method, 7, train).eval()


@pytest.mark.parametrize(("residual", "side"), [("abs", SIZE), ("squared", SIZE), ("abs", LARGE)])
def test_the_score_is_the_papers(residual, side):
    images, tested = (TRAIN, TEST) if side == SIZE else (noise(0, 9, side, side), noise(1, 4, side, side))
    method = fitted(made(residual), images)

    def vectors(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            difference = images - method.autoencoder.reconstruct(images)
        return backbone()(difference.abs() if residual == "abs" else difference**2)[0].double().numpy()

    train, test = vectors(images), vectors(tested)
    mean, std = train.mean(0), train.std(0)
    distance = cdist((test - mean) / std, (train - mean) / std) ** 2
    with torch.no_grad():
        prediction = method(tested)
        difference = (tested - method.autoencoder.reconstruct(tested)).abs()
    np.testing.assert_allclose(prediction.score, np.sort(distance)[:, :3].mean(1), rtol=1e-3)
    wanted = difference if residual == "abs" else difference**2
    torch.testing.assert_close(prediction.anomaly_map, wanted.mean(1))
    assert prediction.anomaly_map.shape == (4, side, side)


def test_nothing_is_stored_before_the_last_step():
    method = after(made(), 6)
    assert method.estimator.bank_.numel() == 0
    assert method.training
    assert fitted(method).estimator.bank_.shape == (9, 40)


def test_a_fold_never_learns_from_its_images_and_gives_their_residuals():
    method = made(folds=3)
    folds = method._folds(TRAIN)
    assert set(folds.tolist()) == {0, 1, 2}
    assert torch.equal(method._folds(TRAIN[[4, 2]]), folds[[4, 2]])  # by content, in whatever batch
    for fold in range(3):
        own = TRAIN[folds == fold]
        method.zero_grad()
        method.training_step(unlabelled(own), 0).backward()
        learns = [any(p.grad is not None for p in one.parameters()) for one in method.left_out]
        assert learns == [other != fold for other in range(3)]
        assert method.autoencoder.to_latent.weight.grad is not None
    fitted(method)
    with torch.no_grad():
        for row in range(9):
            own = method.left_out[int(folds[row])]
            difference = (TRAIN[[row]] - own.reconstruct(TRAIN[[row]])).abs()
            wanted = method.standardizer(backbone()(difference)[0])
            torch.testing.assert_close(method.estimator.bank_[[row]], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.residual_folds=0", "at least 1 fold"),
        ("model.learning_rate=0", "give a rate above 0"),
        ("model.autoencoder.patch_stride=7", "patch_size: 32 with stride 7 does not tile 64 x 64"),
        ("data.center_crop=48", "model.autoencoder.image_size: 64 x 64, but images have only 48 x 48"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_read(tmp_path, change, message):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    with pytest.raises(Exception, match=message) as caught:
        ran(tmp_path, *SMALL, *on_tree(tree), change)
    cause = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(cause, ConfigError)
    assert not list(tmp_path.glob("runs/*/*/*/*"))


def test_other_neighbours_take_the_weights_of_the_same_training(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=7, size=(64, 64))
    small = (*SMALL, *on_tree(tree))
    _, first = ran(tmp_path, *small, "model.estimator.neighbors=1")
    metrics, second = ran(tmp_path, *small, "model.estimator.neighbors=3")
    assert (second / "model.ckpt").samefile(first / "model.ckpt")
    assert not (second / "training.csv").exists()
    assert metrics
    assert composed(*small).model.estimator.neighbors == 15


def test_under_mixed_precision_training_images_are_nearest_to_themselves(tmp_path):
    """The bank and the scores of a test come from the same arithmetic."""
    tree = mvtec_tree(tmp_path / "data", train=7, size=(64, 64))
    shutil.rmtree(tree / "part/test/good")
    shutil.copytree(tree / "part/train/good", tree / "part/test/good")
    mixed = ("trainer.precision=bf16-mixed", "model.estimator.neighbors=1", "data.holdout=0")
    _, path = ran(tmp_path, *SMALL, *on_tree(tree), *mixed)
    with (path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {label: [float(row["score"]) for row in rows if row["label"] == label] for label in "01"}
    assert max(scores["0"]) < 0.05 * min(scores["1"])


def test_photographs_larger_than_the_autoencoder_sees_them_have_maps_of_their_size(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=7, good=3, bad=3, size=(96, 96))
    large = ("data.image_size=96", "model.autoencoder.image_size=64", "evaluation.overlays=1")
    metrics, path = ran(tmp_path, *SMALL, *on_tree(tree), *large, "evaluation.save_maps=true")
    assert 0 <= metrics["pixel_auroc"] <= 1
    with np.load(path / "maps" / "maps.npz") as maps:
        assert {maps[name].shape for name in maps} == {(96, 96)}
    names = {file.name for file in (path / "figures").iterdir()}
    assert {"tsne.png", "tsne.csv", "tsne_latent.png", "tsne_latent.csv"} <= names


def test_folds_and_an_augmentation_exclude_each_other(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    turned = (
        "data.augment={_target_:anomaly_lab.data.augment.rotation.Rotation,probability:1.0,degrees:[1,2]}"
    )
    with pytest.raises(ConfigError, match=r"model\.residual_folds: .* give data\.augment=null"):
        ran(tmp_path, *SMALL, *on_tree(tree), turned, "model.residual_folds=2")
