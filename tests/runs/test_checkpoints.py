"""Checkpoints: only those of the recipe asked for, and only whole ones."""

import shutil

import pytest

import anomaly_lab
from anomaly_lab.errors import RunError
from tests.runs.small_runs import tiny_draem
from tests.support.runs import ran
from tests.support.trees import mvtec_tree


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_named(tmp_path):
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    _, first = ran(tmp_path, *tiny_draem(tree))
    _, other = ran(tmp_path, *tiny_draem(tree), "model.learning_rate=1e-3")
    shutil.copy(other / "model.ckpt", first / "model.ckpt")
    with pytest.raises(RunError, match=r"model\.ckpt: was trained with another recipe"):
        anomaly_lab.load(first)
    (first / "model.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"model\.ckpt: is no readable checkpoint"):
        anomaly_lab.load(first)
