"""How the weight of CPCAE's penalty is chosen: the rule by hand, what is measured in a loop, a run of it."""

import numpy as np
import pytest
import torch

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from tests import sparsity
from tests.support.runs import on_tree
from tests.support.trees import mvtec_tree


def test_the_largest_weight_within_a_standard_error_of_the_least_error_is_chosen():
    """The least mean is 4.0, of 0.01, with a standard error of 1 / sqrt(3) = 0.58."""
    errors = {0.0: [4, 5, 6], 0.01: [3, 4, 5], 0.1: [4, 4.5, 5.2], 1.0: [4, 4.5, 5.3]}
    weights, found = list(errors), [np.array(error, float) for error in errors.values()]
    assert sparsity.chosen(weights, found) == 0.1  # 4.57, and 1.0 has 4.60
    assert sparsity.chosen(weights[::-1], found[::-1]) == 0.1
    assert sparsity.chosen([0.1, 0.0], [found[1], found[1]]) == 0.1


def test_what_is_measured_is_the_mean_over_patches():
    torch.manual_seed(0)
    network = PatchAutoencoder(16, 8, 4, [4], 5, "scalar", 0.0, 1).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    found = sparsity.seen(network, images)
    for row, image in enumerate(torch.from_numpy(images / 255).permute(0, 3, 1, 2).float()):
        error, active, penalty = [], [], []
        for k, (top, left) in enumerate((top, left) for top in (0, 4, 8) for left in (0, 4, 8)):
            patch = image[None, :, top : top + 8, left : left + 8]
            with torch.no_grad():
                again, latent = network(patch, network.position[[k]])
            error.append(((patch.double() - again.double()) ** 2).sum().item())
            active.append(int((latent > 0).sum()))
            penalty.append(latent.double().sum().item())
        wanted = (np.mean(error), np.mean(active), np.mean(penalty))
        assert tuple(values[row] for values in found) == pytest.approx(wanted, rel=1e-5)


def test_every_weight_sees_the_same_batches_and_each_image_once_a_pass():
    rows = [row for batch in sparsity.batches(5, 2, 5, 0) for row in batch]
    assert sorted(rows[:5]) == [0, 1, 2, 3, 4]
    assert np.bincount(rows).tolist() == [2] * 5
    again = [row for batch in sparsity.batches(5, 2, 5, 0) for row in batch]
    assert rows == again


def test_a_heavier_penalty_leaves_fewer_values_active_and_no_test_image_is_scored(tmp_path, capsys):
    tree = mvtec_tree(tmp_path / "data", train=8, size=(32, 32))
    small = ["data.image_size=32", "trainer.max_steps=60", "data.batch_size=4"]
    given = [*on_tree(tree), *small, "model.learning_rate=0.01"]
    sparsity.main(["0,100", *given, "data.holdout=0.4"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    active = [float(row[5]) for row in rows[2:]]
    assert [row[1].strip() for row in rows[2:]] == ["0", "100"]
    assert active[1] < active[0] / 2
    with pytest.raises(ConfigError, match=r"data\.holdout: keeps 1 normal images; give a share"):
        sparsity.main([*given, "data.holdout=0.1"])
