"""SSIM and the focal loss against scikit-image and their formulae in float64."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import focal_loss, ssim
from tests.support.runs import composed


def images(seed: int, shape: tuple[int, ...] = (2, 3, 40, 33)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    return x, (x + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1)


def test_ssim_equals_scikit_image_where_its_window_fits():
    x, y = images(0)
    ours = ssim(x, y, "unit")
    for b in range(2):
        for c in range(3):
            a, d = x[b, c].double().numpy(), y[b, c].double().numpy()
            _, theirs = structural_similarity(
                a, d, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
            )
            np.testing.assert_allclose(ours[b, c, 5:-5, 5:-5].numpy(), theirs[5:-5, 5:-5], atol=2e-5)


def ssim_loop(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """The definition, one pixel at a time, zeros outside."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    px, py = np.pad(x, 5), np.pad(y, 5)
    out = np.empty_like(x)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            a, b = px[i : i + 11, j : j + 11], py[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
            cov = (window * a * b).sum() - ma * mb
            out[i, j] = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return out


@pytest.mark.parametrize(
    ("scale", "offset", "span"),
    [(1.0, 0.0, 1.0), (1.0, -0.8, 2.0), (255.0, 0.0, 255.0), (400.0, -100.0, 256.0)],
)
def test_ssim_pads_with_zeros_and_guesses_the_range_from_its_first_argument(scale, offset, span):
    x, y = (scale * v.double() + offset for v in images(1, (1, 1, 14, 12)))
    ours = ssim(x, y, "guessed")[0, 0].numpy()
    np.testing.assert_allclose(ours, ssim_loop(x[0, 0].numpy(), y[0, 0].numpy(), span), atol=2e-4)


def test_ssim_of_equal_images_is_one_also_when_they_are_constant():
    x = torch.full((1, 3, 16, 16), 0.5)
    assert torch.allclose(ssim(x, x, "unit"), torch.ones_like(x), atol=1e-6)


def test_ssim_stays_in_float32_under_autocast():
    x, y = images(2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(x, y, "unit")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ssim(x, y, "unit"))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
def test_focal_loss_equals_its_formula_in_float64(gamma):
    generator = torch.Generator().manual_seed(3)
    probability = torch.rand((2, 5, 7), generator=generator)
    mask = torch.rand((2, 5, 7), generator=generator) > 0.7
    total = 0.0
    for p, anomalous in zip(probability.flatten().tolist(), mask.flatten().tolist(), strict=True):
        one_hot = [1e-5, 1 - 1e-5] if anomalous else [1 - 1e-5, 1e-5]
        true = one_hot[0] * (1 - p) + one_hot[1] * p + 1e-5
        total -= (1 - true) ** gamma * math.log(true)
    assert focal_loss(probability, mask, gamma).item() == pytest.approx(total / mask.numel(), rel=1e-5)


@pytest.mark.parametrize("model", ["draem_small", "prff_small"])
@pytest.mark.parametrize("gamma", [0.5, -1.0])
def test_a_focusing_exponent_without_a_finite_gradient_is_refused(model, gamma):
    cfg = composed(f"model={model}", "data=demo", f"model.focal_gamma={gamma}")
    with pytest.raises(Exception, match=rf"model\.focal_gamma: {gamma}; give 0 or at least 1") as error:
        instantiate(cfg.model, _convert_="all")
    assert isinstance(error.value.__cause__ or error.value, ConfigError)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("right", [False, True])
def test_focal_loss_is_finite_where_the_network_is_sure(right, gamma):
    probability = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    loss = focal_loss(probability, torch.tensor([[[not right, right]]]), gamma)
    loss.backward()
    assert loss.isfinite()
    assert probability.grad.isfinite().all()
