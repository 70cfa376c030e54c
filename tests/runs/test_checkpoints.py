"""Checkpoints: only those of the recipe asked for, and only whole ones."""

import shutil

import pytest
import torch

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


def test_a_checkpoint_of_the_right_hash_with_other_content_is_one_line(tmp_path):
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    _, path = ran(tmp_path, *tiny_draem(tree))
    file = path / "model.ckpt"
    good = torch.load(file, weights_only=True)
    name, weight = next((name, value) for name, value in good["state_dict"].items() if value.dim() == 4)
    for content, said in (
        ([1], "is no checkpoint, but a list"),
        ({"training_hash": good["training_hash"]}, "has no state_dict"),
        (good | {"state_dict": [1]}, "has no state_dict"),
        (good | {"state_dict": good["state_dict"] | {name: 1}}, f"{name} is no tensor"),
        (
            good | {"state_dict": good["state_dict"] | {name: weight * float("nan")}},
            f"{name} has values that are not finite",
        ),
        (
            good | {"state_dict": good["state_dict"] | {name: weight[:1]}},
            rf"does not fit the method \(size mismatch for {name}: .*\)",
        ),
        (good | {"state_dict": {}}, r"does not fit the method \(.*\)"),
        (
            good | {"state_dict": good["state_dict"] | {"no.such_": weight}},
            r"does not fit the method \(.*\)",
        ),
        (good | {"training_hash": ["a", "b"]}, r"was trained with another recipe .*"),
    ):
        torch.save(content, file)
        with pytest.raises(RunError, match=rf"^{file}: {said}; remove it to train again$") as caught:
            anomaly_lab.load(path)
        assert "\n" not in str(caught.value)
    (path / "manifest.json").write_text((path / "manifest.json").read_text().replace('"done"', '"running"'))
    torch.save(good | {"loops": []}, path / "resume.ckpt")
    file.unlink()
    with pytest.raises(RunError, match=r"resume\.ckpt: does not say how far the training was; remove it"):
        ran(tmp_path, *tiny_draem(tree))
