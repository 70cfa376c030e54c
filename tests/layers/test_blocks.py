"""Parts of convolutional networks: a batch of one value, a change of size along each axis."""

import numpy as np
import torch

from anomaly_lab.layers.blocks import BatchNormOfAny, Float32Conv2d, resized


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
