"""A trained method leaves for production as one ONNX graph that gives the same scores as torch."""

import dataclasses

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from tests.support.export import exported
from tests.support.runs import composed

DEPTHS = [1, 1, 2, 1]  # one pair of blocks: without and with the shifted windows


def image(channels: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, 64, 64, generator=generator)


@pytest.fixture(scope="module")
def method():
    """Random weights, the reconstruction's norms settled on images: passes differ by more than rounding."""
    torch.manual_seed(0)
    method = instantiate(
        composed("model=prff_small", "data=demo", f"model.swin_upernet.depths={DEPTHS}").model,
        _convert_="all",
    )
    for norm in (part for part in method.reconstructive.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        for _ in range(2):
            method.reconstructive(image(3, 3))
    return method.eval()


@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@torch.no_grad()
def test_the_whole_prff_small_with_its_gate(method, tmp_path):
    images = image(3, 3)
    method.progressive = dataclasses.replace(method.progressive, iterations=1)
    first = method(images)
    threshold = first.score.sort().values[:2].mean().item()  # one image stays below the gate
    method.progressive = dataclasses.replace(method.progressive, iterations=2, threshold=threshold)
    wanted = method(images)
    assert (wanted.score == first.score).tolist() == (first.score <= threshold).tolist()
    assert (wanted.score - first.score).abs().max() > 1e-3
    anomaly_map, score = exported(method, images, tmp_path / "prff.onnx")
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, atol=1e-4)
    np.testing.assert_allclose(score, wanted.score, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_the_discriminator_with_its_adaptive_pools(method, tmp_path):
    fused = image(15, 1)
    (logits,) = exported(method.discriminative, fused, tmp_path / "discriminator.onnx")
    np.testing.assert_allclose(logits, method.discriminative(fused), atol=1e-4)
