"""Convolutions without a padded copy, against timm's, which pad as TensorFlow does."""

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from anomaly_lab.backbones.same_padding import SameConv, unpadded

NAME = "tf_efficientnet_lite0"


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("sides", [(8, 8), (9, 9), (8, 9), (13, 6), (1, 2)])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (5, 4), ((3, 5), 4)])
def test_it_gives_what_timm_gives(sides, kernel, groups):
    convolution = Conv2dSame(4, 8, kernel, stride=2, groups=groups).double()
    image = noise(2, 4, *sides)
    wanted = convolution(image)
    assert wanted.shape[2:] == (-(-sides[0] // 2), -(-sides[1] // 2))
    torch.testing.assert_close(SameConv(convolution)(image), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sides", [(64, 64), (75, 66)])
def test_a_whole_network_gives_the_same_and_keeps_the_names_of_its_weights(sides):
    network = timm.create_model(NAME, features_only=True).double().eval()
    image = noise(1, 3, *sides)
    with torch.no_grad():
        wanted, names = network(image), list(network.state_dict())
        found = unpadded(network)(image)
    assert sum(isinstance(part, SameConv) for part in network.modules()) == 5
    assert not any(isinstance(part, Conv2dSame) for part in network.modules())
    assert list(network.state_dict()) == names
    for level, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "other",
    [
        Conv2dSame(3, 4, 3, stride=1),
        Conv2dSame(3, 4, 1, stride=2),
        Conv2dSame(3, 4, 2, stride=2),
        Conv2dSame(3, 4, 3, stride=2, dilation=2),
        nn.Conv2d(3, 4, 3, stride=2),
    ],
)
def test_other_convolutions_stay(other):
    assert unpadded(nn.Sequential(other))[0] is other
