"""The measures of one mean picture, against loops, and at their ends."""

import numpy as np
import pytest
import torch

from tests.mean_picture import measured, pull, spread, unit
from tests.methods.vt_adl.tiny import images, made, step


def test_the_three_measures_are_their_definitions():
    x, y, mean = images(1, 5), 0.3 * images(1, 5) + 0.2 * images(2, 5), images(3, 1)[0]
    a, b = x.double().numpy(), y.double().numpy()
    own, drawn = a - np.mean(a, axis=0), b - np.mean(b, axis=0)
    pairs = zip(own, drawn, strict=True)
    found = measured(x, y, mean)
    assert found.variance == pytest.approx(np.mean(np.var(b, axis=0)) / np.mean(np.var(a, axis=0)))
    cosines = [np.sum(o * d) / np.sqrt(np.sum(o**2) * np.sum(d**2)) for o, d in pairs]
    assert found.correlation == pytest.approx(np.mean(cosines))
    wanted = 1 - np.mean((a - b) ** 2) / np.mean((a - mean.double().numpy()) ** 2)
    assert found.explained == pytest.approx(wanted)
    assert 0 < found.variance < 1
    assert 0.5 < found.correlation < 1


def test_one_picture_has_nothing_of_the_images_and_the_images_have_all():
    x = images(1, 5)
    assert measured(x, x, x.mean(0)) == pytest.approx((1, 1, 1))
    assert measured(x, x[:1].expand(5, -1, -1, -1), x.mean(0))[:2] == pytest.approx((0, 0), abs=1e-12)
    assert measured(x, x.mean(0).expand(5, -1, -1, -1), x.mean(0)).explained == pytest.approx(0, abs=1e-6)


def test_the_spread_of_vectors_is_variance_over_mean_square():
    vectors = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    assert spread(vectors) == pytest.approx(1 / 17)
    assert spread(vectors - vectors.mean(0)) == pytest.approx(1)


def test_the_pull_at_a_squashed_vector_is_across_it_and_at_the_bare_one_also_along():
    """The squash lets 2 / (1 + r^2) of what it lets through across a vector through along it."""
    squashed, bare = (made(f"model.bottleneck={kind}") for kind in ("squashed_linear", "linear"))
    for method in (squashed, bare):
        method.bottleneck.weight.data *= 20
    one, other = (pull(method, images(4, 3)) for method in (squashed, bare))
    assert one["length"] == pytest.approx(other["length"])
    assert one["length"] > 20
    assert one["radial"] / one["tangential"] < 0.1 * other["radial"] / other["tangential"]


def test_images_of_the_data_become_those_of_a_batch():
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    found = unit(array)
    assert found.shape == (2, 3, 4, 5)
    assert found[1, 2, 3, 4].item() == pytest.approx(array[1, 3, 4, 2] / 255)


def test_the_kick_is_what_adams_first_step_does_to_a_vector_of_the_same_tokens():
    method = made(
        "model.bottleneck=linear", "model.latent_noise=0", "model.nll_weight=0", "model.weight_decay=0"
    )
    same = images(5, 1).expand(4, -1, -1, -1)
    wanted = pull(method, same)["kick"]
    with torch.no_grad():
        tokens = method.encoder(same).flatten(1)
        before = method.bottleneck(tokens)
    step(method, torch.optim.Adam(method.bottleneck.parameters(), method.learning_rate), same)
    moved = (method.bottleneck(tokens) - before).abs()
    assert moved.mean().item() == pytest.approx(wanted, rel=0.01)
