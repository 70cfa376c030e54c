"""AE-L2: the squared error as the score, and an autoencoder that learns what is normal."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.methods.ae_l2 import AutoencoderL2
from tests.support.features import noise
from tests.support.train_batches import unlabelled

SIZE = 32


@pytest.mark.parametrize("side", [SIZE, 45])
def test_ae_l2_scores_the_squared_error(side):
    """Of the image itself, also where the autoencoder sees it smaller."""
    images = noise(1, 4, side, side)
    torch.manual_seed(0)
    method = AutoencoderL2(PatchAutoencoder(SIZE, 16, 8, [4, 8], 6, "onehot", 1e-3, 9), 1e-2).eval()
    with torch.no_grad():
        again, prediction = method.autoencoder.reconstruct(images).double(), method(images)
    error = ((images.double() - again) ** 2).numpy()
    np.testing.assert_allclose(prediction.score, error.sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(prediction.anomaly_map, error.sum(1), rtol=1e-4)


def test_the_autoencoder_learns_what_is_normal():
    """Sixty steps on stripes: a square on a stripe image then stands out against any stripe image."""
    rng = np.random.default_rng(5)

    def stripes(count: int) -> Tensor:
        shift = torch.from_numpy(rng.random((count, 1, 1, 1)))
        wave = 0.5 + 0.4 * torch.sin(torch.arange(SIZE) / 4 + 6.28 * shift)
        return wave.expand(count, 3, SIZE, SIZE).float()

    torch.manual_seed(0)
    method = AutoencoderL2(PatchAutoencoder(SIZE, 16, 8, [8, 16], 8, "scalar", 1e-4, 9), 1e-2)
    optimizer = method.configure_optimizers()
    for _ in range(60):
        images = stripes(8)
        loss = method.training_step(unlabelled(images), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    normal, spoiled = stripes(8), stripes(8)
    spoiled[:, :, 10:18, 12:20] = 1 - spoiled[:, :, 10:18, 12:20]
    with torch.no_grad():
        good, bad = method.eval()(normal), method(spoiled)
    assert bad.score.min() > good.score.max()
    inside = bad.anomaly_map[:, 10:18, 12:20].mean()
    assert inside > 3 * bad.anomaly_map[:, :8].mean()
