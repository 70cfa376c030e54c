"""What a method is told of its training, and parts that are right by themselves but not together."""

import math

import pytest
import torch

from anomaly_lab.config.building import instantiate
from anomaly_lab.data.augment.hierarchical import HierarchicalTransformation
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.nearest import Nearest
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.training.plan import check_together, introduced, planned
from anomaly_lab.training.settings import TrainerSettings
from anomaly_lab.types import Training
from tests.support.data_modules import mvtec, ready
from tests.support.runs import composed, on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Six training images."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"), size=(64, 64))


def settings(**changes: object) -> TrainerSettings:
    return instantiate(composed("trainer=cpu").trainer, **{"max_epochs": 3, **changes})


def built(group: str, option: str, *overrides: str) -> object:
    return instantiate(composed(f"{group}={option}", *overrides)[group], _convert_="all")


def cutpaste(ratio: float | None = None) -> Synthesizer:
    made = built("synthesis", "cutpaste")
    made.ratio = ratio
    return made


TURNED = HierarchicalTransformation(depth=1, copies=2, families=["geometry"], flip=False)


# What is planned


@pytest.mark.parametrize(
    ("changes", "data", "steps", "epochs"),
    [
        ({}, {}, 6, 3),  # six images in batches of four: two steps an epoch
        ({"max_steps": 5}, {}, 5, 3),
        ({"max_epochs": -1, "max_steps": 7}, {}, 7, 4),
        ({"step_limit": 2}, {}, 2, 1),
        ({}, {"batch_size": 1}, 18, 3),
        ({}, {"augment": TURNED}, 15, 3),  # eighteen images: five steps
        ({}, {"synthesis": cutpaste(ratio=1.0)}, 9, 3),  # six normal and six pseudo images: three steps
    ],
)
def test_the_length_is_of_steps_and_of_epochs_that_are_begun(changes, data, steps, epochs, tree):
    plan = planned(settings(**changes), mvtec(tree, **data))
    assert (plan.steps, plan.epochs) == (steps, epochs)
    assert plan.epochs == math.ceil(plan.steps / mvtec(tree, **data).batches_per_epoch)


@pytest.mark.parametrize(("holdout", "count"), [(0.0, 0), (0.5, 3)])
def test_the_normals_that_are_kept_are_those_held_out_and_none_of_training(holdout, count, tree):
    data = ready(mvtec(tree, holdout=holdout, batch_size=2))
    plan = planned(settings(), data)
    kept, seen = list(plan.kept), list(plan.normals)
    assert sum(map(len, kept)) == count
    assert sum(map(len, seen)) == 6 - count
    for place, image in enumerate(torch.cat(kept) if kept else ()):
        wanted = torch.from_numpy(data.normal.images[place]).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, wanted)
        assert not any(torch.equal(image, other) for other in torch.cat(seen))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, (True, False, False)),
        ({"sampling": "replacement"}, (False, False, False)),
        ({"augment": TURNED}, (True, True, False)),
        ({"synthesis": cutpaste()}, (True, False, True)),
        ({"synthesis": cutpaste(ratio=1.0)}, (True, False, True)),
        ({"synthesis": cutpaste(ratio=0.0)}, (True, False, False)),
    ],
)
def test_what_training_sees_is_told(data, wanted, tree):
    plan = planned(settings(), mvtec(tree, **data))
    assert (plan.each_once, plan.augmented, plan.pseudo) == wanted
    assert planned(settings(precision="bf16-mixed"), mvtec(tree)).precision == "bf16-mixed"


def test_the_normals_are_the_training_images_as_they_are_each_time_from_the_first(tree):
    data = mvtec(tree, synthesis=cutpaste(), augment=TURNED, holdout=0.0)
    plan = planned(settings(), data)  # before anything is decoded
    ready(data)
    batches = [list(plan.normals), list(plan.normals)]
    assert [len(batch) for batch in batches[0]] == [4, 2]
    images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2).float() / 255
    for found in batches:
        assert torch.equal(torch.cat(found), images)


def test_a_training_without_steps_is_one_line(tree):
    with pytest.raises(ConfigError, match=r"^trainer\.max_epochs=0, .*: give one of them, at least 1"):
        planned(settings(max_epochs=0), mvtec(tree))


# What a method is told


def test_a_method_is_told_once_before_anything_is_trained(tree, tmp_path, monkeypatch):
    told: list[tuple[Training, list[float]]] = []
    monkeypatch.setattr(Nearest, "check_training", lambda self, plan: told.append((plan, [*self.bank_])))
    small = ["model=nearest", *on_tree(tree), "data.image_size=16", "evaluation.overlays=0", "data.holdout=0"]
    ran(tmp_path, *small, "data.batch_size=4")
    ((plan, bank),) = told
    assert (plan.steps, plan.epochs, plan.pseudo, bank) == (2, 1, False, [])


def test_a_method_that_cannot_be_trained_so_is_told_nothing(tree):
    class Choosy(Nearest.__base__):
        def forward(self, image): ...
        def collect(self, image): ...
        def fit(self, collected): ...

        def check_training(self, training: Training) -> None:
            raise ConfigError("data.sampling: not so")

    method = Choosy()
    assert isinstance(method, AnomalyMethod)
    with pytest.raises(ConfigError, match="not so"):
        method.tell(planned(settings(), mvtec(tree)))
    assert "plan" not in vars(method)


# What does not go together


def how(resolution: str = "network", mask_resize: str = "nearest"):
    keys = (f"evaluation.resolution={resolution}", f"evaluation.mask_resize={mask_resize}")
    return instantiate(composed(*keys).evaluation)


def test_parts_that_go_together_are_taken(tree):
    nearest, draem = built("model", "nearest"), built("model", "draem_small")
    fitting = [
        (nearest, mvtec(tree), how()),
        (nearest, mvtec(tree), how("original")),
        (nearest, mvtec(tree), how("network", "floor")),
        (draem, mvtec(tree, image_size=64, synthesis=cutpaste()), how()),
    ]
    refused = []
    for parts in fitting:
        try:
            check_together(*parts)
        except ConfigError as error:
            refused.append(str(error))
    assert refused == []


@pytest.mark.parametrize(
    ("model", "data", "evaluation", "line"),
    [
        (
            "draem_small",
            {},
            (),
            r"^data\.image_size: Draem takes multiples of \d+ from \d+ on, not 40 x 48$",
        ),
        (
            "nearest",
            {"synthesis": cutpaste()},
            (),
            r"^synthesis: this method learns from normal images",
        ),
        (
            "nearest",
            {"register": True},
            ("original",),
            r"^evaluation\.resolution: original does not go with data\.",
        ),
        (
            "nearest",
            {"register": True},
            ("network", "floor"),
            r"^evaluation\.mask_resize: floor does not go with data\.register=true; give nearest",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_one_line(model, data, evaluation, line, tree):
    with pytest.raises(ConfigError, match=line) as caught:
        check_together(built("model", model), mvtec(tree, **data), how(*evaluation))
    assert "\n" not in str(caught.value)


# What is said before a training


def test_size_and_length_of_what_is_about_to_be_trained_are_said(tree):
    data = mvtec(tree)
    method = built("model", "nearest")
    method.tell(planned(settings(max_epochs=1), data))
    said = "nothing to train by gradients; images of 40 x 48; a fit over 2 batches in 1 epoch"
    assert introduced(method, (40, 48)) == f"Nearest: 0.00 M parameters (0.0 MB), {said}"
    draem = built("model", "draem_small")
    draem.tell(planned(settings(), mvtec(tree, synthesis=cutpaste())))
    count = sum(parameter.numel() for parameter in draem.parameters())
    size = f"{count / 1e6:.2f} M parameters ({count * 4 / 1e6:.1f} MB), 100% of them trainable"
    assert introduced(draem, (64, 64)) == f"Draem: {size}; images of 64 x 64; 6 steps in 3 epochs"
