"""A trained method leaves for production as one ONNX graph that gives the same scores as torch."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from anomaly_lab.config.building import instantiate
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.methods.ae_l2 import AutoencoderL2
from anomaly_lab.methods.prff.method import Prff
from tests.support.export import exported
from tests.support.runs import composed

pytestmark = pytest.mark.long


def image(channels: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, 64, 64, generator=generator)


def prff(discriminator: str) -> Prff:
    """Random weights, the norms settled on images: passes differ by more than rounding."""
    torch.manual_seed(0)
    recipe = composed("model=prff_small", "data=demo", f"model.discriminator={discriminator}")
    method = instantiate(recipe.model, _convert_="all")
    for norm in (part for part in method.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        for _ in range(3):
            method.train()(image(3, 3))
    return method.eval()


@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@torch.no_grad()
def test_the_whole_prff_small_with_its_gate(tmp_path):
    """With the U-Net as discriminator, whose graph is a third as large; the other one has its test below."""
    images, method = image(3, 3), prff("unet")
    method.progressive = dataclasses.replace(method.progressive, iterations=1)
    first = method(images)
    threshold = first.score.sort().values[:2].mean().item()  # one image stays below the gate
    method.progressive = dataclasses.replace(method.progressive, iterations=2, threshold=threshold)
    wanted = method(images)
    assert (wanted.score == first.score).tolist() == (first.score <= threshold).tolist()
    effect = (wanted.anomaly_map - first.anomaly_map).abs().amax((1, 2))
    assert (effect.sort().values[1:] > 0.1).all()  # a graph without gate or second pass would fail
    anomaly_map, score = exported(method, images, tmp_path / "prff.onnx")
    # Rounding is enlarged by norms that were settled on three images.
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, atol=1e-2)
    np.testing.assert_allclose(score, wanted.score, atol=1e-2)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_an_autoencoder_that_sees_images_smaller_than_they_are(tmp_path):
    torch.manual_seed(0)
    method = AutoencoderL2(PatchAutoencoder(32, 16, 8, [4, 8], 6, "scalar", 0.0, 9), 1e-3).eval()
    images = image(3, 2)
    anomaly_map, score = exported(method, images, tmp_path / "ae_l2.onnx")
    wanted = method(images)
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, atol=1e-4)
    np.testing.assert_allclose(score, wanted.score, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_the_discriminator_with_its_adaptive_pools(tmp_path):
    fused, method = image(15, 1), prff("swin_upernet")
    (logits,) = exported(method.discriminative, fused, tmp_path / "discriminator.onnx")
    np.testing.assert_allclose(logits, method.discriminative(fused), atol=1e-4)
