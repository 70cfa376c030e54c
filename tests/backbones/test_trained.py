"""A network that a method trains on: the weights that it begins with."""

import torch

from anomaly_lab.backbones.trained import TrainedBackbone
from anomaly_lab.backbones.weights import BUNDLED
from tests.support.features import noise

IMAGE = noise(0, 3, 64, 48)


def test_the_bundled_weights_arrive_in_a_backbone_that_is_trained():
    """Folded or not, what it computes before training is the same."""
    found = []
    for freeze in (True, False):
        torch.manual_seed(0)
        backbone = TrainedBackbone(BUNDLED, "bundled", ["blocks.1", "blocks.4"], freeze).eval()
        random = backbone(IMAGE)[0]
        backbone.load_pretrained()
        found.append(backbone(IMAGE))
        assert not torch.allclose(found[-1][0], random, atol=0.1)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert not found[0][0].requires_grad
    assert found[1][0].requires_grad
