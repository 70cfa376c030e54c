"""MLFF trained: it learns from pseudo anomalies and pretrained weights, says what is in vain, resumes."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

import anomaly_lab
from anomaly_lab.backbones.timm_networks import foldable, frozen
from anomaly_lab.backbones.weights import BUNDLED, pretrained
from anomaly_lab.methods.mlff.method import Mlff
from anomaly_lab.training.plan import planned
from anomaly_lab.training.settings import TrainerSettings
from anomaly_lab.types import TrainBatch
from tests.methods.mlff.narrow import NARROW, TINY, batch, built
from tests.support.runs import CONF, composed, on_tree, ran
from tests.support.train_batches import unlabelled
from tests.support.training import told, weights
from tests.support.trees import defective_image, mvtec_tree, normal_image

pytestmark = pytest.mark.long


def pseudo_batch(*address: int) -> TrainBatch:
    """Return four images of 64 px, two with a bright square, and what they were without it."""
    made = [defective_image((64, 64), *address, number) for number in range(4)]
    clean = np.stack([normal_image((64, 64), *address, number) for number in range(4)])
    mask = np.stack([mask for _, mask in made])
    mask[2:] = False
    image = np.where(mask[..., None], np.stack([image for image, _ in made]), clean)
    image, clean = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 for pixels in (image, clean))
    return unlabelled(image, clean, torch.from_numpy(mask))


def test_it_learns_to_find_pseudo_anomalies_in_new_images():
    quick = ("model.warmup=0", "model.backbone.freeze=false", "model.backbone_learning_rate=2e-3")
    method = told(built(*TINY, *quick), steps=50).train()
    training = method.configure_optimizers()
    for step in range(50):
        training["optimizer"].zero_grad()
        method.training_step(pseudo_batch(1, step), step).backward()
        training["optimizer"].step()
        training["lr_scheduler"]["scheduler"].step()
    new = [pseudo_batch(2, number) for number in range(3)]
    with torch.no_grad():
        maps = torch.cat([method.eval()(one.image).anomaly_map for one in new])
    assert roc_auc_score(torch.cat([one.mask for one in new]).flatten(), maps.flatten()) > 0.8


@pytest.mark.parametrize(("epochs", "feature", "said"), [(1, 0.1, True), (1, 0, False), (2, 0.1, False)])
def test_a_feature_loss_that_cannot_begin_is_said(epochs, feature, said, caplog):
    method = told(built(*TINY, f"model.losses.feature={feature}"), epochs=epochs)
    with caplog.at_level(logging.WARNING):
        method.on_train_start()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("anomaly_lab")]
    assert len(lines) == said
    assert all("0.1 has no effect" in line and "give model.losses.feature=0" in line for line in lines)


def settings(**changes) -> TrainerSettings:
    given = OmegaConf.to_container(composed("model=mlff_small", "data=demo").trainer)
    return TrainerSettings(**{key: value for key, value in given.items() if key != "_target_"} | changes)


@pytest.mark.parametrize(
    ("source", "ratio", "said"),
    [("none", None, True), ("some", 0, True), ("some", 0.5, False), ("some", None, False)],
)
def test_a_training_without_pseudo_anomalies_is_said(source, ratio, said, caplog):
    synthesis = SimpleNamespace(source=source, ratio=ratio)
    given = {"sampling": "shuffle", "augment": None, "normals": [], "roles": {"anomalies": []}}
    data = SimpleNamespace(batches_per_epoch=3, batch_size=2, synthesis=synthesis, **given)
    method = built(*TINY)
    method.tell(planned(settings(max_epochs=9, max_steps=-1), data))
    assert method.plan.epochs == 9
    with caplog.at_level(logging.WARNING):
        method.on_train_start()
    assert ("no pseudo anomalies" in caplog.text) is said


@pytest.mark.parametrize("ratio", [0, 1])
def test_every_ratio_runs_with_the_bundled_weights_and_a_saved_run_predicts(ratio, tmp_path, caplog):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    how = ["data.image_size=64", "data.batch_size=2", "data.holdout=0", "evaluation.overlays=0"]
    how += [f"synthesis.ratio={ratio}", "trainer.max_steps=4"]
    metrics, path = ran(tmp_path, "model=mlff_small", *NARROW, *on_tree(tree), *how)
    assert 0 <= metrics["image_auroc"] <= 1
    run = anomaly_lab.load(path)
    image = (batch(count=1).image[0] * 255).byte().movedim(0, -1).numpy()
    assert run.predict([image]).anomaly_map.isfinite().all()
    saved = weights(path)
    assert saved["center_"].shape == (8,)
    assert ("model.losses.feature" in caplog.text) is (ratio == 1)  # whose four steps are one epoch
    backbone = built().backbone
    joined = foldable(BUNDLED, backbone.layers)
    wanted = frozen(pretrained(BUNDLED, "bundled", backbone.making), joined).state_dict()
    assert len(wanted) > 50
    assert all(torch.equal(saved[f"backbone.network.{key}"], value) for key, value in wanted.items())


def test_the_ablations_switch_what_the_recipe_has():
    recipe = composed("model=mlff", "data=demo")
    for name in ("mlff_ablation", "mlff_ratio"):
        params = OmegaConf.load(CONF.parent / "experiments" / f"{name}.yaml").hydra.sweeper.params
        keys = [key for key in params if key.startswith(("model.", "synthesis."))]
        assert keys
        assert all(str(OmegaConf.select(recipe, key)).lower() in str(params[key]).split(",") for key in keys)


def test_a_broken_run_goes_on_to_the_same_bits_with_its_center(tmp_path, monkeypatch):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    how = ["data.image_size=64", "data.batch_size=2", "data.holdout=0", "evaluation.overlays=0"]
    how += ["trainer.max_steps=8", "trainer.save_minutes=0", "evaluation.bootstrap=10"]
    command = ["model=mlff_small", *NARROW, *TINY, *on_tree(tree), *how]
    whole_metrics, whole = ran(tmp_path / "whole", *command)
    genuine, steps = Mlff.training_step, []

    def breaking(self, one, index):
        steps.append(index)
        if len(steps) == 6:  # the second epoch's last; the step before was saved
            raise RuntimeError("broken")
        return genuine(self, one, index)

    monkeypatch.setattr(Mlff, "training_step", breaking)
    with pytest.raises(RuntimeError, match="broken"):
        ran(tmp_path / "broken", *command)
    metrics, resumed = ran(tmp_path / "broken", *command)
    ours, theirs = weights(whole), weights(resumed)
    assert len(steps) == 6 + 3  # the sixth is done again
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert metrics == whole_metrics
