"""From tokens to one vector: routing one capsule at a time, what it is with one output, and a linear map."""

import numpy as np
import pytest
import torch

from anomaly_lab.layers.capsules import Capsules, squash
from anomaly_lab.methods.vt_adl.projection import LinearProjection
from tests.support.routing import routed
from tests.support.routing import squashed as shortened


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
    linear = LinearProjection(64, 7, squashed=True).double()
    capsules = Capsules(16, 4, 1, 7, 3).double()
    linear.weight.data = capsules.weight.data[0].permute(1, 0, 2).flatten(1).clone()
    aim = torch.randn(3, 7, dtype=torch.float64)
    one, other = capsules(tokens.reshape(3, 16, 4))[:, 0], linear(tokens.flatten(1))
    torch.testing.assert_close(one, other)
    first = torch.autograd.grad((one * aim).sum(), [tokens, capsules.weight])
    second = torch.autograd.grad((other * aim).sum(), [tokens, linear.weight])
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[1][0].permute(1, 0, 2).flatten(1), second[1])


@pytest.mark.parametrize("squashed", [False, True])
def test_the_projection_is_a_sum_over_all_entries_of_all_tokens(squashed):
    torch.manual_seed(6)
    layer, tokens = LinearProjection(12, 5, squashed=squashed), torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(tokens.flatten(1))
    assert found.dtype == torch.float32  # bf16 would round to three digits
    weight = layer.weight.detach().double().numpy()
    for image, vector in zip(tokens.double().numpy(), found, strict=True):
        entries = [value for token in image for value in token]
        wanted = np.array([sum(w * x for w, x in zip(row, entries, strict=True)) for row in weight])
        wanted = shortened(wanted) if squashed else wanted
        np.testing.assert_allclose(vector.detach(), wanted, rtol=1e-5, atol=1e-8)


def test_the_projection_starts_as_the_capsules_do():
    torch.manual_seed(7)
    for weight in (LinearProjection(64, 512, squashed=False).weight, Capsules(8, 8, 1, 512, 3).weight):
        assert weight.std().item() == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("length", [0.3, 1.0, 44.0, 205.0])
def test_a_squash_lets_the_less_of_a_gradient_along_a_vector_through_the_longer_it_is(length):
    """Along it 2 r / (1 + r^2)^2, across it r / (1 + r^2): at 205, 2.3e-7 and 4.9e-3."""
    torch.manual_seed(8)
    vector = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0) * length
    jacobian = torch.autograd.functional.jacobian(squash, vector)
    along = vector / length
    across = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    across = torch.nn.functional.normalize(across - (across @ along) * along, dim=0)
    through = [(jacobian @ one).norm().item() for one in (along, across)]
    square = 1 + length**2
    assert through == pytest.approx([2 * length / square**2, length / square], rel=1e-6)


def test_squashing_nothing_has_a_gradient():
    vector = torch.zeros(2, 3, requires_grad=True)
    squash(vector).sum().backward()
    assert vector.grad.isfinite().all()
