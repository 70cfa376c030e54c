"""The capsule network: its size, its numbers against loops in float64, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.capsnet.network import CapsuleNetwork
from tests.methods.capsnet.narrow import images, network
from tests.support.routing import routed, squashed
from tests.support.runs import composed


def counted(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def of_recipe(name: str) -> CapsuleNetwork:
    with torch.device("meta"):
        return instantiate(composed(f"model={name}", "data=demo").model, _convert_="all").network


def grid(made: CapsuleNetwork, channels: int) -> tuple[int, ...]:
    image = torch.empty(1, channels, made.height, made.width, device="meta")
    return tuple(made.primary(made.convolutions(image)).shape[1:])


def test_the_papers_network_has_6970384_parameters():
    made = of_recipe("capsnet_28")
    parts = [made.convolutions, made.primary, made.classes, made.decoder]
    assert [counted(part) for part in parts] == [20_992, 5_308_672, 294_912, 1_345_808]
    assert counted(made) == 6_970_384
    assert made.classes.weight.shape == (2, 1152, 16, 8)
    assert grid(made, 1) == (256, 6, 6)


def test_photographs_take_a_second_convolution_and_2048_primary_capsules():
    made = of_recipe("capsnet")
    assert made.classes.weight.shape == (2, 2048, 16, 8)
    assert grid(made, 3) == (256, 8, 8)


def convolved(layer: torch.nn.Conv2d, image: np.ndarray) -> np.ndarray:
    """Return the (D, h, w) output for one (C, H, W) image, a plane at a time."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    step = layer.stride[0]
    planes = [
        sum(correlate2d(image[c], filters[c], "valid") for c in range(len(image)))[::step, ::step] + shift
        for filters, shift in zip(weight, bias, strict=True)
    ]
    return np.array(planes)


def capsules_of(made: CapsuleNetwork, image: np.ndarray) -> np.ndarray:
    """Return one image's (2, P) class capsules in float64, written out."""
    for layer in made.convolutions:
        if isinstance(layer, torch.nn.Conv2d):
            image = np.maximum(convolved(layer, image), 0)
    planes = convolved(made.primary, image)
    dim = made.primary_dim
    primary = [
        squashed(planes[first : first + dim, row, column])
        for first in range(0, len(planes), dim)
        for row in range(planes.shape[1])
        for column in range(planes.shape[2])
    ]
    return routed(made.classes.weight.detach().numpy(), np.array(primary), made.classes.iterations)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"colours": "grey", "routing_iterations": 1},
        {"convolutions": [[5, 3, 1], [4, 3, 2]], "primary": [2, 4, 2, 1], "image_size": [12, 14]},
    ],
)
def test_class_capsules_are_the_algorithm_written_out(changes):
    made = network(**changes).double()
    image = torch.rand(2, 3, made.height, made.width, dtype=torch.float64)
    seen = image
    if made.channels == 1:
        grey = image[:, 0] * 0.299 + image[:, 1] * 0.587 + image[:, 2] * 0.114
        seen = grey[:, None]
        torch.testing.assert_close(made.seen(image), seen.float())
    found = made.double()(seen).detach().numpy()
    wanted = np.array([capsules_of(made, one.numpy()) for one in seen])
    # The input of the routing is rounded to float32 where it leaves the convolutions.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.ptp(np.linalg.norm(wanted, axis=2)) > 0.02


def test_grey_of_a_grey_photograph_is_its_value():
    value = torch.rand(1, 1, 12, 12)
    torch.testing.assert_close(network(colours="grey").seen(value.expand(-1, 3, -1, -1)), value)


def test_an_image_is_decoded_from_the_capsule_of_one_class_alone():
    made = network().double()
    capsules = torch.randn(3, 2, 6, dtype=torch.float64)
    label = torch.tensor([False, True, False])
    found = made.decoded(capsules, label)
    assert found.shape == (3, 3, 12, 12)
    layers = [layer for layer in made.decoder if isinstance(layer, torch.nn.Linear)]
    for one, anomalous, picture in zip(capsules.numpy(), label.tolist(), found, strict=True):
        x = np.zeros(12)
        x[6 * anomalous : 6 * anomalous + 6] = one[int(anomalous)]
        for layer in layers:
            x = np.maximum(x, 0) if layer is not layers[0] else x
            x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
        wanted = 1 / (1 + np.exp(-x.reshape(3, 12, 12)))
        np.testing.assert_allclose(picture.detach().numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"convolutions": [[5, 3]]}, r"convolutions: \[5, 3\]; give \[channels, kernel, stride\]"),
        ({"primary": [3, 4, 5]}, r"primary: \[3, 4, 5\]; give \[maps, dim, kernel, stride\]"),
        ({"primary": [3, 0, 5, 2]}, r"primary: \[3, 0, 5, 2\]; give"),
        ({"class_dim": 0}, "class_dim: 0; give at least 1"),
        ({"routing_iterations": 0}, "routing_iterations: 0; give at least 1"),
        ({"decoder": [7, 0]}, "decoder: 0; give at least 1"),
        ({"image_size": 6}, "a kernel of 5 does not fit into 4 x 4; give larger images"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(changes, line):
    with pytest.raises(ConfigError, match=f"^model.network.*{line}"):
        network(**changes)


def test_images_of_another_size_are_refused():
    network().check_size(12, 12)
    with pytest.raises(ConfigError, match=r"image_size: 12 x 12, but images have 12 x 16; give"):
        network().check_size(12, 16)
    assert images(1).shape[2:] == (12, 12)
