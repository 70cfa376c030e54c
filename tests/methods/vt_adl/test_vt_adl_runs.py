"""VT-ADL in whole runs: what the paper prints, sums of gradients, a broken run that goes on."""

import pytest
import torch

from anomaly_lab.methods.vt_adl.method import VtAdl
from tests.methods.vt_adl.tiny import TINY
from tests.support.runs import on_tree, ran
from tests.support.training import weights
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.long


def test_a_run_reports_what_the_paper_prints_beside_what_it_is_and_sums_gradients(tmp_path):
    tree = mvtec_tree(tmp_path / "tree", train=4, good=2, bad=2, size=(48, 48))
    small = ["model=vt_adl_released_small", *TINY, *on_tree(tree), "trainer=debug"]
    small += ["data.batch_size=2", "evaluation.overlays=0", "data.holdout=0"]
    metrics, path = ran(tmp_path, *small)
    assert metrics["pro_as_printed"] == metrics["pixel_auroc"]
    assert metrics["pixel_aupro"] != metrics["pixel_auroc"]
    _, cleared = ran(tmp_path, *small, "model.mixture_gradients=cleared")
    summed, plain = weights(path), weights(cleared)
    assert summed.keys() == plain.keys()
    assert not torch.equal(summed["mixture.means"], plain["mixture.means"])


def test_a_broken_run_goes_on_to_the_same_bits_with_its_sums(tmp_path, monkeypatch):
    tree = mvtec_tree(tmp_path / "tree", train=4, good=2, bad=2, size=(48, 48))
    how = ["data.batch_size=2", "data.holdout=0", "trainer.max_steps=6", "trainer.save_minutes=0"]
    command = ["model=vt_adl_released_small", *TINY, *on_tree(tree), *how, "evaluation.overlays=0"]
    whole = ran(tmp_path / "whole", *command)
    genuine, steps = VtAdl.training_step, []

    def breaking(self, one, index):
        steps.append(index)
        if len(steps) == 4:  # the second epoch's last; the step before was saved
            raise RuntimeError("broken")
        return genuine(self, one, index)

    monkeypatch.setattr(VtAdl, "training_step", breaking)
    with pytest.raises(RuntimeError, match="broken"):
        ran(tmp_path / "broken", *command)
    resumed = ran(tmp_path / "broken", *command)
    ours, theirs = (weights(path) for _, path in (whole, resumed))
    assert len(steps) == 4 + 3  # the fourth is done again
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert whole[0] == resumed[0]
