"""Parts of convolutional networks: a batch of one value, a change of size along each axis."""

import numpy as np
import pytest
import torch
from torch import nn

from anomaly_lab.layers.blocks import BatchNormOfAny, Float32Conv2d, NarrowBatchNorm2d, resized


def test_resizing_averages_along_an_axis_that_shrinks_and_interpolates_along_one_that_grows():
    x = torch.randn((1, 2, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    averaged = x.reshape(1, 2, 4, 2, 3).mean(3)
    np.testing.assert_allclose(resized(x, (4, 3)), averaged)
    middle = (
        averaged[..., :1] * 0.75 + averaged[..., 1:2] * 0.25,
        averaged[..., :1] * 0.25 + averaged[..., 1:2] * 0.75,
    )
    np.testing.assert_allclose(resized(x, (4, 6))[..., 1:3], torch.cat(middle, dim=-1))
    assert resized(x, (8, 3)) is x


def test_one_value_a_channel_is_normalised_by_the_running_statistics():
    norm = BatchNormOfAny(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.fill_(4.0)
    alone = torch.tensor([3.0, 2.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(norm(alone).flatten(), torch.tensor([1.0, 0.0, -1.0]))
    assert norm.num_batches_tracked == 0
    two = torch.cat([alone, alone + 2])
    torch.testing.assert_close(norm(two)[1].flatten(), torch.ones(3))
    assert norm.num_batches_tracked == 1


def test_a_float32_convolution_rounds_nothing_under_autocast():
    torch.manual_seed(0)
    convolution, x = Float32Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = convolution(x)
        assert torch.equal(convolution(x.bfloat16()), convolution(x.bfloat16().float()))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, convolution(x))


@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_narrow_batch_norm_is_batch_norm_in_any_layout(channels, layout):
    """Outputs, gradients and running statistics are those of the formula in float64; the layout stays."""
    torch.manual_seed(0)
    norm, x = NarrowBatchNorm2d(channels), torch.randn(3, channels, 6, 5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    given = x.clone(memory_format=layout).requires_grad_()
    out = norm(given)
    assert out.is_contiguous(memory_format=layout)
    out.square().sum().backward()

    exact = x.detach().double().requires_grad_()
    mean, var = exact.mean((0, 2, 3), keepdim=True), exact.var((0, 2, 3), correction=0, keepdim=True)
    weight, bias = (p.detach().double().view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    expected = (exact - mean) / (var + norm.eps).sqrt() * weight + bias
    expected.square().sum().backward()
    np.testing.assert_allclose(out.detach(), expected.detach(), atol=1e-5)
    np.testing.assert_allclose(given.grad, exact.grad, atol=1e-4)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean.detach().flatten(), atol=1e-6)
    np.testing.assert_allclose(norm.running_var - 0.9, 0.1 * x.double().var((0, 2, 3)), atol=1e-5)
    assert torch.equal(
        norm.eval()(given),
        nn.functional.batch_norm(given, norm.running_mean, norm.running_var, norm.weight, norm.bias),
    )
