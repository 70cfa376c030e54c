"""CPCAE's autoencoder: patches, conditions, overlaps and loss against loops written out; what cannot tile."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers import patch_autoencoder
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder

ARGUMENTS = {
    "image_size": [24, 16],
    "patch_size": 8,
    "patch_stride": 4,
    "channels": [4, 6],
    "latent_dim": 5,
    "condition": "scalar",
    "activity_l1": 0.5,
    "patches_per_image": 15,
}
POSITIONS = [(top, left) for top in range(0, 17, 4) for left in range(0, 9, 4)]  # 5 x 3, in reading order


def made(**changes) -> PatchAutoencoder:
    torch.manual_seed(0)
    return PatchAutoencoder(**{**ARGUMENTS, **changes}).eval()


def images(count: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).random((count, 3, 24, 16), dtype=np.float32))


def test_the_published_kind_of_size_has_the_shapes_of_the_table():
    network = PatchAutoencoder(256, 64, 32, [32, 64, 128, 256], 128, "scalar", 1e-3, 16)
    assert network.position.shape == (49, 1)
    assert network.encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 4096)
    assert (network.to_latent.in_features, network.from_latent.in_features) == (4097, 129)
    again, latent = network(torch.zeros(2, 3, 64, 64), network.position[:2])
    assert (again.shape, latent.shape) == ((2, 3, 64, 64), (2, 128))
    widths = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert widths == [128, 64, 32, 3]


def test_the_condition_says_where_a_patch_lies():
    scalar, onehot = made(), made(condition="onehot")
    np.testing.assert_allclose(scalar.position[:, 0], [(k + 1) / 15 for k in range(15)])
    assert torch.equal(onehot.position, torch.eye(15))
    patch = images()[:, :, :8, :8]
    for network in (scalar, onehot):
        first, last = (network(patch, network.position[[k, k]])[0] for k in (0, 14))
        assert not torch.equal(first, last)


def test_the_image_is_put_together_with_overlaps_averaged():
    network, image = made(), images()
    total, times = torch.zeros_like(image), torch.zeros(24, 16)
    with torch.no_grad():
        for k, (top, left) in enumerate(POSITIONS):
            window = (..., slice(top, top + 8), slice(left, left + 8))
            total[window] += network(image[window], network.position[[k, k]])[0]
            times[window] += 1
        torch.testing.assert_close(network.reconstruct(image), total / times)
    assert times.max() == 4


def test_the_loss_is_the_papers_formula_over_all_patches():
    """Equations 2 and 3 in float64: a patch's squared error plus the weighted sum of its latent values."""
    network, image = made(), images()
    losses = []
    for k, (top, left) in enumerate(POSITIONS):
        patch = image[..., top : top + 8, left : left + 8]
        again, latent = network(patch, network.position[[k, k]])
        error = ((patch.double() - again.double()) ** 2).sum((1, 2, 3)) + 0.5 * latent.double().abs().sum(1)
        losses.append(error)
    assert network.loss(image).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert network.loss(image).requires_grad


def test_each_step_draws_other_patches_and_none_twice_an_image():
    network, image = made(patches_per_image=4), images()
    seen = []

    def forward(patches: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(position)
        return patches, torch.zeros(len(patches), 5)

    network.forward = forward
    torch.manual_seed(3)
    network.loss(image)
    network.loss(image)
    drawn = [(15 * step.flatten()).round().int().view(2, 4) for step in seen]
    assert all(len(set(row.tolist())) == 4 for step in drawn for row in step)
    assert not torch.equal(*drawn)


def at_size(image: Tensor, height: int, width: int) -> Tensor:
    """Resize as Pillow does: bilinear, over all that a pixel covers on the way down."""
    planes = image.flatten(0, 1).numpy()
    resized = [Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR) for one in planes]
    return torch.from_numpy(np.stack([np.array(one) for one in resized])).unflatten(0, (-1, 3))


@torch.no_grad()
def test_a_larger_image_is_made_smaller_and_what_comes_of_it_as_large_again():
    """Sections 3.1 and 3.2; the penalised loss stays at the patches' size."""
    network = made()
    large = torch.from_numpy(np.random.default_rng(2).random((2, 3, 61, 40), dtype=np.float32))
    smaller = at_size(large, 24, 16)
    wanted = at_size(network.reconstruct(smaller), 61, 40)
    torch.testing.assert_close(network.reconstruct(large), wanted, rtol=0, atol=1e-4)
    assert network.loss(large).item() == pytest.approx(network.loss(smaller).item(), rel=1e-4)
    torch.testing.assert_close(network.latent(large), network.latent(smaller), rtol=0, atol=1e-4)
    assert (network.latent(large) - network.latent(large[:, :, ::2, ::2])).abs().max() > 1e-3


@torch.no_grad()
def test_an_image_of_the_patches_size_is_not_resized(monkeypatch):
    monkeypatch.setattr(patch_autoencoder, "interpolate", None)
    made().reconstruct(images())
    made().loss(images())
    with pytest.raises(TypeError):
        made().reconstruct(torch.zeros(1, 3, 25, 16))


@torch.no_grad()
def test_the_latent_vectors_of_all_patches_are_joined_in_reading_order():
    network, image = made(), images()
    for k, (top, left) in enumerate(POSITIONS):
        patch = image[..., top : top + 8, left : left + 8]
        _, wanted = network(patch, network.position[[k, k]])
        torch.testing.assert_close(network.latent(image)[:, 5 * k : 5 * k + 5], wanted)
    assert network.latent(image).shape == (2, 15 * 5)


def test_another_has_the_same_shape_and_weights_of_its_own():
    network = made()
    other = network.another()
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (network, other)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(network.to_latent.weight, other.to_latent.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_stride": 5}, r"patch_size: 8 with stride 5 does not tile 24 x 16"),
        ({"patch_size": 6}, r"patch_size: 6 \(stride 4\); give a multiple of 4"),
        ({"patch_size": 32}, r"patch_size: 32 .*at most the image's side"),
        ({"patch_stride": 0}, r"stride 0\); give"),
        ({"latent_dim": 0}, r"latent_dim, patches_per_image and channels are at least 1"),
        ({"activity_l1": -1.0}, "no weight < 0"),
    ],
)
def test_what_cannot_be_is_one_line(change, message):
    with pytest.raises(ConfigError, match=message):
        made(**change)


def test_no_image_is_smaller_than_what_the_patches_tile():
    made().check_size(24, 16)
    made().check_size(24, 99)
    for size in ((23, 16), (99, 15)):
        with pytest.raises(ConfigError, match=rf"image_size: 24 x 16, but images have only {size[0]} x"):
            made().check_size(*size)
