"""What a recipe costs, on a network whose every output can be counted by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, TrainBatch
from tests.bench import costs
from tests.support.training import told

SIZE = (8, 6)


class Two(AnomalyMethod):
    """Two convolutions, the first to half the sides, and a norm; a function doubles the map again."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(5, 2, 1)
        self.last.bias.requires_grad = False
        self.register_buffer("bank_", torch.zeros(11))

    def forward(self, image: Tensor) -> Prediction:
        coarse = self.last(self.inner(image)).mean(dim=1, keepdim=True)
        large = nn.functional.interpolate(coarse, image.shape[2:])[:, 0]
        return Prediction(large, large.amax((1, 2)))

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        return self(batch.image).anomaly_map.square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def method() -> AnomalyMethod:
    torch.manual_seed(0)
    return told(Two()).eval()


def test_each_output_of_a_module_and_its_gradient_is_counted_once(method):
    before = {key: value.clone() for key, value in method.state_dict().items()}
    image = costs.noise(1, SIZE, torch.device("cpu"))
    pixels = 4 * 3
    # The convolution, the norm, the ReLU, and the last one; float32.
    wanted = 4 * pixels * (5 + 5 + 5 + 2) / 1e6
    assert costs.activations_mb(method, image) == pytest.approx((wanted, wanted))
    # A training step was done, of which nothing is left.
    assert not method.training
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert all(weight.grad is None for weight in method.parameters())


def test_what_was_learned_is_all_of_a_checkpoint_that_is_no_parameter(method):
    # The bank, the norm's mean and variance in float32, and its count in int64.
    assert costs.learned_mb(method) * 1e6 == 4 * (11 + 5 + 5) + 8
    numbers = 4 * sum(weight.numel() for weight in method.parameters()) + costs.learned_mb(method) * 1e6
    assert numbers < costs.checkpoint_mb(method) * 1e6 < numbers + 10_000


def test_pretrained_weights_become_random_wherever_they_stand():
    content = {"weights": "bundled", "parts": [{"weights": "imagenet"}, {"weights": "random", "width": 3}]}
    made = costs.random_weights(content | {"weight": "imagenet"})
    parts = [{"weights": "random"}, {"weights": "random", "width": 3}]
    assert made == {"weights": "random", "parts": parts, "weight": "imagenet"}


def test_no_more_images_are_timed_than_the_limit_has_time_for(method):
    plan = costs.Plan(4, repeats=5, warm_ups=2, limit=60.0, onnx=False, device=torch.device("cpu"))
    seen = []
    method.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert costs.milliseconds(method, SIZE, plan)[1] == 5
    assert len({image.sum().item() for image in seen}) == 7  # what was seen last may be remembered
    took, repeats = costs.milliseconds(method, SIZE, plan._replace(limit=0.0))
    assert repeats == 1
    assert took > 0
