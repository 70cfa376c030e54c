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


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(norm, x):
    """Return output and input gradient of one step of training, with an uneven loss."""
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = norm.train()(given)
    weights = torch.linspace(0.5, 1.5, out.numel()).view(x.shape)
    (out * torch.empty_like(out).copy_(weights)).square().sum().backward()
    return out.detach(), given.grad


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("channels", [8, 16])
def test_a_narrow_batch_norm_is_batch_norm(channels):
    """Outputs, gradients and running statistics are those of the formula in float64; the layout stays."""
    torch.manual_seed(0)
    norm = NarrowBatchNorm2d(channels)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, channels, 6, 5).contiguous(memory_format=torch.channels_last)
    out, gradient = trained(norm, x)
    assert out.is_contiguous(memory_format=torch.channels_last)

    exact = x.double().requires_grad_()
    mean, var = exact.mean((0, 2, 3), keepdim=True), exact.var((0, 2, 3), correction=0, keepdim=True)
    weight, bias = (p.detach().double().view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    expected = (exact - mean) / (var + norm.eps).sqrt() * weight + bias
    (expected * torch.linspace(0.5, 1.5, x.numel()).view(x.shape)).square().sum().backward()
    np.testing.assert_allclose(out, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(gradient, exact.grad, atol=1e-3)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean.detach().flatten(), atol=1e-6)
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * x.double().var((0, 2, 3)), atol=1e-5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("channels", "threads", "copied"), [(8, 2, True), (8, 1, False), (16, 2, False)])
def test_few_channels_are_copied_for_several_threads_alone(channels, threads, copied, monkeypatch):
    """The kernel gets planes, forwards and backwards, where threads would share a line, and nowhere else."""
    inputs = []
    kernel = torch.batch_norm

    def watched(x, *given):
        inputs.append(x.is_contiguous())
        return kernel(x, *given)

    monkeypatch.setattr(torch, "batch_norm", watched)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    last, planes = torch.channels_last, torch.contiguous_format
    x = torch.randn(4, channels, 32, 32)
    out, gradient = trained(NarrowBatchNorm2d(channels), x.contiguous(memory_format=last))
    plain = x.contiguous(memory_format=planes if copied else last)
    same_out, same_gradient = trained(nn.BatchNorm2d(channels), plain)
    assert torch.equal(out, same_out)
    assert torch.equal(gradient, same_gradient)
    NarrowBatchNorm2d(channels).eval()(x.contiguous(memory_format=last))
    assert inputs == [copied, copied, False]
