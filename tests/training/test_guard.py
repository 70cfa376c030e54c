"""What keeps a training exact: the seed of each epoch, the last step, a resumed state that goes on alike."""

import copy
from types import SimpleNamespace

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here
from anomaly_lab.training.guard import Guard
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.mark.parametrize("saved", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("resumed", [torch.channels_last, torch.contiguous_format])
def test_a_state_saved_under_another_layout_goes_on_alike(saved, resumed):
    def made(layout):
        torch.manual_seed(0)
        network = nn.Conv2d(4, 6, 3).to(memory_format=layout)
        return network, torch.optim.AdamW(network.parameters(), 0.01, fused=True)

    def step(network, optimizer):
        optimizer.zero_grad()
        (network(torch.linspace(-1, 1, 4 * 64).reshape(1, 4, 8, 8)) ** 2).sum().backward()
        optimizer.step()

    network, optimizer = made(saved)
    for _ in range(3):
        step(network, optimizer)
    again, its_optimizer = made(resumed)
    again.load_state_dict(network.state_dict())
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    trainer = SimpleNamespace(optimizers=[its_optimizer], global_step=3)
    method = SimpleNamespace(automatic_optimization=True, device=torch.device("cpu"))
    Guard(0).on_train_start(trainer, method)
    step(network, optimizer)
    step(again, its_optimizer)
    torch.testing.assert_close(again.weight, network.weight)


@pytest.mark.parametrize("optimizers", [[], [SimpleNamespace(param_groups=[])]])
def test_a_method_that_would_learn_but_gives_no_optimizer_is_one_line(optimizers):
    class Forgetful:
        automatic_optimization = True
        device = torch.device("cpu")

    trainer = SimpleNamespace(optimizers=optimizers, global_step=0)
    with pytest.raises(ConfigError) as caught:
        Guard(0).on_train_start(trainer, Forgetful())
    assert str(caught.value).startswith(
        "Forgetful.configure_optimizers gives no optimizer; return an optimizer"
    )
    assert "\n" not in str(caught.value)
    Forgetful.automatic_optimization = False  # as of a fitted method, which needs none
    Guard(0).on_train_start(trainer, Forgetful())


def test_what_is_random_within_an_epoch_depends_on_seed_and_epoch_alone():
    def drawn(seed: int, epoch: int) -> float:
        torch.rand(7)
        Guard(seed).on_train_epoch_start(SimpleNamespace(current_epoch=epoch), None)
        return torch.rand(()).item()

    places = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    values = [drawn(*place) for place in places]
    assert len(set(values)) == 4
    assert [drawn(*place) for place in reversed(places)] == values[::-1]


@pytest.mark.parametrize("steps", [4, 5])
def test_training_stops_after_its_last_step_also_within_an_epoch(steps, tmp_path):
    """Four images in batches of two: two steps an epoch."""
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    _, path = ran(tmp_path, *small, *on_tree(tree), f"trainer.max_steps={steps}", "evaluation.overlays=0")
    rows = [row.split(",")[:2] for row in (path / "training.csv").read_text().splitlines()[1:]]
    assert rows == [[str(step), str((step - 1) // 2)] for step in range(1, steps + 1)]


def test_the_random_numbers_of_a_resumed_state_go_on():
    method = SimpleNamespace(device=torch.device("cpu"), automatic_optimization=False)
    trainer = SimpleNamespace(optimizers=[], global_step=0)
    torch.rand(3)
    state = {}
    Guard(0).on_save_checkpoint(trainer, method, state)
    drawn = torch.rand(5)
    resumed = Guard(0)
    resumed.on_load_checkpoint(trainer, method, state)
    resumed.on_train_start(trainer, method)
    assert torch.equal(torch.rand(5), drawn)


@pytest.mark.parametrize(
    ("part", "alike"),
    [
        (nn.Linear(2, 2), True),
        (nn.Dropout2d(0.0), True),
        (nn.Dropout2d(0.1), False),
        (DropPath(0.2), False),
        (DropPath(0.0), True),
    ],
)
def test_ranks_draw_alike_but_for_what_a_network_drops(part, alike, monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(here.PLACE, "rank", rank)
        Guard(3).on_train_epoch_start(SimpleNamespace(current_epoch=1), nn.Sequential(nn.ReLU(), part))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn) is alike


@pytest.mark.parametrize(("part", "alike"), [(nn.Linear(2, 2), True), (nn.Dropout(0.1), False)])
def test_so_they_do_after_a_state_that_the_first_kept_within_an_epoch(part, alike, monkeypatch):
    """Two resumes at two steps differ, too, as two steps of a training do."""
    method = nn.Sequential(part)
    method.device, method.automatic_optimization = torch.device("cpu"), False
    state = {}
    Guard(3).on_save_checkpoint(None, method, state)
    drawn = {}
    for rank, step in ((0, 0), (1, 5), (1, 6)):
        monkeypatch.setattr(here.PLACE, "rank", rank)
        resumed = Guard(3)
        resumed.on_load_checkpoint(None, method, state)
        resumed.on_train_start(SimpleNamespace(optimizers=[], global_step=step, current_epoch=1), method)
        drawn[rank, step] = torch.rand(4)
    assert torch.equal(drawn[0, 0], drawn[1, 5]) is alike
    assert torch.equal(drawn[1, 5], drawn[1, 6]) is alike
