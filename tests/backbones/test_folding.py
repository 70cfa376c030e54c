"""Batch norms folded into convolutions: no output changes, and what cannot be folded stays."""

import copy

import pytest
import timm
import torch

from anomaly_lab.backbones.folding import fold, pairs
from tests.support.features import extractor, noise

IMAGE = noise(0, 3, 64, 48)


def folded(network: torch.nn.Module) -> torch.nn.Module:
    return fold(copy.deepcopy(network), pairs(network))


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "ghostnet_050", "densenet121", "convnext_atto"]
)
def test_folded_norms_change_no_output(name):
    """Networks that end a layer in a convolution, that normalise first, or that have no batch norm, too."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True, out_indices=(0, 1, 2)).eval().double()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        wanted = network(IMAGE.double())
        fast = folded(network)
        found = fast(IMAGE.double())
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    left = [module for module in fast.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(left) < len(norms) or not norms


class Skipping(torch.nn.Module):
    """A norm and a skip read its convolution; its second norm comes after an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.last = torch.nn.BatchNorm2d(4)

    def forward(self, image):
        convolved = self.conv(image)
        return [self.last((self.norm(convolved) + convolved).relu_())]


def test_a_network_that_cannot_be_folded_stays_as_it_is():
    network = Skipping().eval()
    network.norm.running_mean.fill_(3.0)
    with torch.no_grad():
        wanted = network(IMAGE)[0]
        assert torch.equal(folded(network)(IMAGE)[0], wanted)
    small = extractor("inception_v3", layers=("Conv2d_2b_3x3",))  # takes no image of 64 pixels
    assert small.network is not None


@pytest.mark.parametrize("value", [0.0, 1e30, float("nan")])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "densenet121"])
def test_what_is_folded_depends_on_no_weight(name, value):
    with torch.device("meta"):
        wanted = folded(timm.create_model(name, features_only=True).eval()).state_dict()
    network = timm.create_model(name, features_only=True).eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(1 if tensor.dtype == torch.int64 else value)
    found = folded(network).state_dict()
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in wanted.items()
    }


class Reading(torch.nn.Module):
    """Reads its convolution beside the norm, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.how = how

    def forward(self, image):
        convolved = self.conv(image)
        if self.how == "in place":
            convolved.relu_()
        elif self.how == "a view":
            view = convolved[:, :2]
            return [torch.cat([self.norm(convolved), view], 1)]
        elif self.how == "twice":
            return [self.norm(convolved) + self.norm(image.repeat(1, 2, 1, 1)[:, :4])]
        elif self.how == "given":
            return [convolved, self.norm(convolved)]
        return [self.norm(convolved)]


@pytest.mark.parametrize("how", ["in place", "a view", "twice", "given", "alone"])
def test_a_norm_is_folded_only_where_it_alone_reads_its_convolution(how):
    network = Reading(how).eval()
    network.norm.running_mean.fill_(3.0)
    fast = folded(network)
    assert isinstance(fast.norm, torch.nn.BatchNorm2d) is (how != "alone")
    with torch.no_grad():
        for ours, theirs in zip(fast(IMAGE), network(IMAGE), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


class Scaled(torch.nn.Conv2d):
    """Its weight is not what it convolves with."""

    def forward(self, image):
        return torch.nn.functional.conv2d(image, self.weight / self.weight.std(), self.bias)


def test_a_convolution_of_another_kind_stays():
    network = Reading("alone").eval()
    network.conv = Scaled(3, 4, 1)
    network.norm.running_var.fill_(4.0)
    with torch.no_grad():
        assert torch.equal(folded(network)(IMAGE)[0], network(IMAGE)[0])
