"""Capsules: routing one capsule at a time, its gradients, and the linear map that it is with one output."""

import numpy as np
import pytest
import torch

from anomaly_lab.layers.capsules import Capsules, SquashedLinear, squash
from tests.support.routing import routed


def test_the_papers_size_has_the_papers_weights():
    with torch.device("meta"):
        assert Capsules(4096, 8, 1, 512, 3).weight.shape == (1, 4096, 512, 8)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_routing_is_the_algorithm_one_capsule_at_a_time(outputs, iterations):
    torch.manual_seed(3)
    layer = Capsules(5, 4, outputs, 6, iterations).double()
    layer.weight.data *= 80  # so that agreement moves the coupling
    capsules = torch.randn(2, 5, 4, dtype=torch.float64)
    found = layer(capsules)
    for b in range(2):
        wanted, coupling = routed(layer.weight.detach().numpy(), capsules[b].numpy(), iterations)
        np.testing.assert_allclose(found[b].detach(), wanted, rtol=1e-10)
        assert iterations == 1 or outputs == 1 or np.ptp(coupling) > 0.2


def test_gradients_see_the_last_coupling_as_given():
    torch.manual_seed(4)
    layer = Capsules(5, 4, 3, 6, 3).double()
    layer.weight.data *= 80
    capsules = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    aim = torch.randn(1, 3, 6, dtype=torch.float64)
    found = torch.autograd.grad((layer(capsules) * aim).sum(), [capsules, layer.weight])
    coupling = torch.tensor(routed(layer.weight.detach().numpy(), capsules[0].detach().numpy(), 3)[1])
    total = (coupling[..., None] * (layer.weight @ capsules[0, :, :, None])[..., 0]).sum(1)
    length = total.square().sum(-1, keepdim=True).sqrt()
    wanted = torch.autograd.grad((total * length / (1 + length**2) * aim[0]).sum(), [capsules, layer.weight])
    torch.testing.assert_close(found, wanted)


def test_one_output_capsule_is_a_squashed_linear_map_whatever_the_iterations():
    torch.manual_seed(5)
    tokens = torch.randn(3, 4, 16, dtype=torch.float64, requires_grad=True)
    linear, capsules = SquashedLinear(64, 7).double(), Capsules(16, 4, 1, 7, 3).double()
    linear.weight.data = capsules.weight.data[0].permute(1, 0, 2).flatten(1).clone()
    aim = torch.randn(3, 7, dtype=torch.float64)
    one, other = capsules(tokens.reshape(3, 16, 4))[:, 0], linear(tokens.flatten(1))
    torch.testing.assert_close(one, other)
    first = torch.autograd.grad((one * aim).sum(), [tokens, capsules.weight])
    second = torch.autograd.grad((other * aim).sum(), [tokens, linear.weight])
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[1][0].permute(1, 0, 2).flatten(1), second[1])


def test_squashing_nothing_has_a_gradient():
    vector = torch.zeros(2, 3, requires_grad=True)
    squash(vector).sum().backward()
    assert vector.grad.isfinite().all()
