"""PRFF-AD in whole runs: the same as DRAEM's, what needs no second training, a broken one, a loaded one."""

import pytest
import torch

import anomaly_lab
from anomaly_lab.methods.prff.method import Prff
from tests.methods.prff.small import AS_DRAEM
from tests.support.runs import on_tree, ran
from tests.support.training import weights
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.long


def test_the_same_run_as_draem_from_the_command_line(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = [*on_tree(tree), "data.image_size=64", "trainer=debug", "data.batch_size=2"]
    small.append("synthesis.probability=1")
    draem, _ = ran(tmp_path / "draem", "model=draem_small", *small)
    prff, _ = ran(tmp_path / "prff", "model=prff_small", *AS_DRAEM, "synthesis=perlin_texture", *small)
    assert prff == draem


def test_iterations_gate_and_threshold_need_no_second_training(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = ["model=prff_small", *on_tree(tree), "data.image_size=64", "trainer=debug", "data.batch_size=2"]
    _, first = ran(tmp_path, *small, "model.progressive.iterations=1")
    for change in ("iterations=3", "kept=max"):  # the second finds two runs with these weights
        _, path = ran(tmp_path, *small, f"model.progressive.{change}")
        assert path != first
        assert f'"trained_in": "{first.name}"' in (path / "manifest.json").read_text(), change
        assert (path / "model.ckpt").samefile(first / "model.ckpt")


def test_a_broken_off_training_with_dropout_and_two_rates_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = ["model=prff_small", *on_tree(tree), "data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    small += ["model.swin_upernet.drop_path_rate=0.3", "model.swin_upernet.dropout=0.3"]
    small += ["synthesis.probability=1"]
    length = ("trainer.max_steps=8", "trainer.save_minutes=0", "evaluation.overlays=0")
    _, whole = ran(tmp_path / "whole", *small, *length)
    step = Prff.training_step

    def breaks(self, batch, index):
        if self.global_step == 5:
            raise RuntimeError("the power went")
        return step(self, batch, index)

    monkeypatch.setattr(Prff, "training_step", breaks)
    with pytest.raises(RuntimeError, match="the power went"):
        ran(tmp_path / "broken", *small, *length)
    monkeypatch.setattr(Prff, "training_step", step)
    assert len(list(tmp_path.glob("broken/runs/*/*/*/*/resume.ckpt"))) == 1
    _, resumed = ran(tmp_path / "broken", *small, *length)
    ours, theirs = weights(whole), weights(resumed)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_loads_when_its_pretrained_file_is_gone(tmp_path):
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    _, path = ran(tmp_path, "model=prff_small", *on_tree(tree), "data.image_size=64", "trainer=debug")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("weights: random", "weights: /gone.pth"))
    assert anomaly_lab.load(path).method.discriminative.weights == "random"
