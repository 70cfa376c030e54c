"""CapsNet's loss and scores against loops in float64, and that few anomalies teach it something."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomaly_lab.errors import ConfigError
from tests.methods.capsnet.narrow import SIDE, batch_of, images, method
from tests.support.export import exported
from tests.support.training import told

LABEL = torch.tensor([False, True, False, True, False])


def quiet(**changes):
    made = method(**changes)
    made.logged = {}
    made.log_dict = made.logged.update
    return made


def norms(made, image: Tensor) -> tuple[np.ndarray, np.ndarray, dict[bool, np.ndarray]]:
    """Return the capsules' lengths (B, 2), the images, and what each capsule is decoded to, in float64."""
    with torch.no_grad():
        capsules = made.network(made.network.seen(image))
        pictures = {
            anomalous: made.network.decoded(capsules, torch.full((len(image),), anomalous)).double().numpy()
            for anomalous in (False, True)
        }
    lengths = [[sum(entry**2 for entry in one) ** 0.5 for one in two] for two in capsules.double().tolist()]
    return np.array(lengths), made.network.seen(image).double().numpy(), pictures


def summed_error(one: np.ndarray, other: np.ndarray) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one.ravel(), other.ravel(), strict=True)))


@pytest.mark.parametrize("reconstruct", ["normal", "all"])
@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_the_loss_is_the_formula_written_out(reconstruct, colours):
    made = quiet(reconstruct=reconstruct, colours=colours)
    image = images(5)
    lengths, seen, pictures = norms(made, image)
    margin = []
    error = []
    for b, anomalous in enumerate(LABEL.tolist()):
        total = 0.0
        for k in range(2):
            if k == anomalous:
                total += max(0.0, 0.9 - lengths[b, k]) ** 2
            else:
                total += 0.5 * max(0.0, lengths[b, k] - 0.1) ** 2
        margin.append(total)
        counts = reconstruct == "all" or not anomalous
        error.append(summed_error(seen[b], pictures[anomalous][b]) if counts else 0.0)
    found = made.losses(image, LABEL)
    np.testing.assert_allclose(found[0].detach(), margin, rtol=1e-4)
    np.testing.assert_allclose(found[1].detach(), error, rtol=1e-4)
    loss = made.training_step(batch_of(image, LABEL), 0)
    assert loss.item() == pytest.approx((sum(margin) + 5e-4 * sum(error)) / 5, rel=1e-4)
    assert made.logged["loss"] == loss
    assert made.logged["loss/margin"].item() == pytest.approx(sum(margin) / 5, rel=1e-4)


def test_a_batch_without_normal_images_has_a_loss_and_teaches_no_reconstruction():
    made = quiet()
    image = images(3)
    loss = made.training_step(batch_of(image, torch.ones(3, dtype=torch.bool)), 0)
    loss.backward()
    assert loss.isfinite()
    assert all((weights.grad == 0).all() for weights in made.network.decoder.parameters())
    assert made.network.classes.weight.grad.norm() > 0


def test_anomalies_teach_the_decoder_in_plain_capsnet_alone():
    """Their gradient is all that the two differ in: that of the normal images is the same."""
    image = images(5)
    gradients = {}
    for reconstruct in ("normal", "all"):
        made = quiet(reconstruct=reconstruct)
        made.losses(image, LABEL)[1].sum().backward()
        gradients[reconstruct] = made.network.decoder[0].weight.grad
    normal, anomalous = gradients["normal"].split(6, dim=1)
    assert (anomalous == 0).all()
    assert normal.abs().max() > 0
    assert gradients["all"][:, 6:].abs().max() > 0
    torch.testing.assert_close(gradients["all"][:, :6], normal)  # each class's capsule has columns of its own


@pytest.mark.parametrize("colours", ["rgb", "grey"])
@torch.no_grad()
def test_both_scores_and_the_map_are_what_they_say(colours):
    image = images(4)
    made = method(colours=colours)
    lengths, seen, pictures = norms(made, image)
    by_length, by_error = made(image), method(colours=colours, score="reconstruction")(image)
    np.testing.assert_allclose(by_length.score, [one[1] - one[0] for one in lengths], rtol=1e-4, atol=1e-6)
    error = [summed_error(one, other) for one, other in zip(seen, pictures[False], strict=True)]
    np.testing.assert_allclose(by_error.score, error, rtol=1e-4)
    wanted = ((seen - pictures[False]) ** 2).sum(1)
    np.testing.assert_allclose(by_length.anomaly_map, wanted, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(by_length.anomaly_map, by_error.anomaly_map, rtol=0, atol=0)
    picture = made.panels(image)["reconstruction"]
    np.testing.assert_allclose(picture, np.broadcast_to(pictures[False], picture.shape), rtol=1e-4)


def drawn(count: int, rng: np.random.Generator, *, anomalous: bool) -> Tensor:
    """Return images of a bright square on noise; an anomalous one has a hole in it."""
    made = 0.1 * rng.random((count, 3, SIDE, SIDE))
    for one in made:
        row, column = rng.integers(1, 4, 2)
        one[:, row : row + 7, column : column + 7] += 0.8
        if anomalous:
            one[:, row + 2 : row + 5, column + 2 : column + 5] -= 0.8
    return torch.from_numpy(made).float()


def test_three_anomalies_among_sixty_images_teach_it_what_they_are():
    rng = np.random.default_rng(0)
    image = torch.cat([drawn(57, rng, anomalous=False), drawn(3, rng, anomalous=True)])
    label = torch.arange(60) >= 57
    made = quiet(convolutions=[[8, 3, 1]], primary=[4, 4, 5, 2], learning_rate=3e-3).train()
    made.network.primary.weight.data /= 5  # as a training begins
    made.network.classes.weight.data /= 100
    optimizer = made.configure_optimizers()["optimizer"]
    for _ in range(60):
        optimizer.zero_grad()
        made.training_step(batch_of(image, label), 0).backward()
        optimizer.step()
    test = torch.cat([drawn(30, rng, anomalous=False), drawn(30, rng, anomalous=True)])
    with torch.no_grad():
        score = made.eval()(test).score
    assert roc_auc_score(np.arange(60) >= 30, score) > 0.95


@pytest.mark.parametrize(("steps", "epoch"), [(3000, 60), (350, 7)])
def test_the_rate_falls_by_a_tenth_after_each_of_fifty_epochs(steps, epoch):
    made = told(method(), steps=steps)
    found = made.configure_optimizers()
    assert isinstance(found["optimizer"], torch.optim.Adam)
    assert found["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(3 * epoch):
        rates += found["lr_scheduler"]["scheduler"].get_last_lr()
        found["optimizer"].step()
        found["lr_scheduler"]["scheduler"].step()
    np.testing.assert_allclose(rates, np.repeat([1e-3, 9e-4, 8.1e-4], epoch), rtol=1e-12)
    assert made.rate(steps - 1) == pytest.approx(0.9**49)


def test_it_is_supervised_and_refuses_a_training_without_anomalies():
    assert method().supervised
    assert told(method(), anomalies=2).plan.anomalies == 2
    with pytest.raises(ConfigError, match=r"^data.train_anomalies: "):
        told(method(), anomalies=0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"margin_absent": 0.9}, "model.margin_absent, model.margin_present: 0.9 and 0.9; give"),
        ({"margin_present": 1.1}, "model.margin_absent, model.margin_present: 0.1 and 1.1; give"),
        ({"learning_rate": 0.0}, "model.learning_rate, model.decay: 0.0 and 0.9; give"),
        ({"decay_periods": 0}, "model.decay_periods: 0; give at least 1"),
        ({"decay": 1.5}, "model.learning_rate, model.decay: 0.001 and 1.5; give"),
        ({"absent_weight": -0.5}, "model.absent_weight: -0.5; give at least 0"),
        ({"reconstruction_weight": float("nan")}, "model.reconstruction_weight: nan; give at least 0"),
    ],
)
def test_a_value_that_makes_no_loss_is_refused_in_a_line(changes, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        method(**changes)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@pytest.mark.parametrize("score", ["length_difference", "reconstruction"])
@torch.no_grad()
def test_it_leaves_as_one_onnx_graph(score, tmp_path):
    made = method(score=score, colours="grey")
    anomaly_map, found = exported(made, images(3), tmp_path / "capsnet.onnx")
    wanted = made(images(3))
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, atol=1e-4)
    np.testing.assert_allclose(found, wanted.score, atol=1e-4)
