"""Batch norms folded into convolutions: no output changes, and what cannot be folded stays."""

import pytest
import timm
import torch

from anomaly_lab.backbones.folding import folded
from tests.support.features import extractor, noise

IMAGE = noise(0, 3, 64, 48)


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
