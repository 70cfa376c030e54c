"""What two ranks compute for tests: the first one in the test's process, the other in one of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_lab.estimators.moments import Moments
from anomaly_lab.layers.blocks import conv
from anomaly_lab.layers.losses import ssim
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.ranks import exchange, here
from anomaly_lab.ranks.norms import NormsOfAll
from anomaly_lab.ranks.seats import Seat, seated
from tests.support.arrays import normal


def network(count: int) -> nn.Module:
    """Return norms with and without weights, one of them of pooled values, in float64."""
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AdaptiveMaxPool2d(1), conv(6, 6, 1))
    norm = nn.BatchNorm1d(5, affine=False) if count > 1 else nn.Tanh()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), norm, nn.Linear(5, 1))
    return nn.Sequential(conv(3, 6, 3), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), pooled, flat).double()


@contextmanager
def sharing(batch: here.Step) -> Iterator[None]:
    """Do what a training does around a step; nothing where one process is alone."""
    if here.size() == 1:
        yield
        return
    with here.stepping(batch), NormsOfAll():
        yield


def step(images: Tensor) -> dict[str, Tensor]:
    """Return what a step of training on a batch leaves: loss, gradients, and the norms' statistics."""
    net = network(len(images))
    batch = here.step_of(len(images))
    if here.size() == 1:
        loss = net(images).square().mean()
        loss.backward()
    else:
        own = images[here.rows(len(images))] if batch.mine else images[-1:]
        with sharing(batch):
            loss = net(own).square().mean() * (batch.mine / batch.all)
        loss.backward()
        loss = exchange.summed(loss)
        for weight in net.parameters():
            exchange.sum_up(weight.grad)
    found = {f"gradient of {name}": weight.grad for name, weight in net.named_parameters()}
    found |= {name: value for name, value in net.state_dict().items() if "running" in name}
    return found | {"loss": loss.detach()}


def moments(vectors: Tensor, joint: bool, batch: int) -> dict[str, Tensor]:
    """Return the moments of vectors that come in batches."""
    found = Moments(joint=joint)
    for few in vectors.split(batch):
        if len(own := few[here.rows(len(few))]):
            found.update(own)
    found = found.of_all_ranks()
    return {"mean": found.origin + found.mean, "scatter": found.scatter, "count": torch.tensor(found.count)}


def drawn(count: int) -> dict[str, Tensor]:
    """Return what is drawn for the images of a batch, and what is in the generator then."""
    torch.manual_seed(3)
    batch = here.step_of(count)
    mine = batch.mine or 1
    with sharing(batch):
        uniform = here.rand(mine, 4, torch.device("cpu"))
        noise = here.randn_like(torch.zeros(mine, 5, 6))
    return {"uniform": uniform, "noise": noise, "next": torch.rand(3)}


def in_parts(images: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Return loss and gradients of an autoencoder on some images of a batch, as a part of a larger loss."""
    torch.manual_seed(1)
    net = PatchAutoencoder(16, 8, 4, [4], 5, "scalar", 1e-3, 3).double()
    torch.manual_seed(2)
    batch = here.step_of(len(images))
    own = here.rows(len(images))
    with sharing(batch):
        few = images[own] if batch.mine else images[-1:]
        marks = chosen[own] if batch.mine else chosen[-1:]
        more = exchange.over_some(few, marks, net.loss)
        if more is None:
            return {}
        loss = more * (batch.mine / batch.all)
    loss.backward()
    for weight in net.parameters():
        exchange.sum_up(weight.grad)
    return {"loss": exchange.summed(loss), **{name: weight.grad for name, weight in net.named_parameters()}}


def all_of_it() -> dict[str, dict[str, Any]]:
    """Return everything, on one rank or on several, by a name of the case."""
    found: dict[str, dict[str, Any]] = {}
    for count in (1, 3, 4):
        found[f"step of {count}"] = step(normal(count, count, 3, 9, 8).double())
        found[f"drawn for {count}"] = drawn(count)
    found["parts"] = in_parts(
        normal(9, 5, 3, 16, 16).double(), torch.tensor([True, True, True, False, False])
    )
    found["one part"] = in_parts(normal(9, 3, 3, 16, 16).double(), torch.tensor([False, False, True]))
    found["no part"] = in_parts(normal(9, 3, 3, 16, 16).double(), torch.zeros(3, dtype=torch.bool))
    found["moments"] = moments(100 + normal(5, 7, 4, 3), True, 3)
    found["sums"] = moments(100 + normal(5, 7, 4, 3), False, 3)
    # 0 is an exact value for whichever rank it comes to; the second image alone goes below -0.5.
    pair = torch.stack([torch.full((3, 12, 12), 0.25), torch.linspace(-1, 1, 432).view(3, 12, 12)])
    with sharing(here.step_of(2)):
        own = pair[here.rows(2)]
        value = ssim(own, own * 0.9, "guessed").mean((1, 2, 3))
    found["ssim"] = {"value": torch.cat(exchange.in_turn([value]))}
    parts = [torch.full((2, 3), 10 * turn + here.rank()).bfloat16() for turn in range(3 - here.rank())]
    found["in turn"] = {"parts": torch.cat(exchange.in_turn(parts))[:, 0].float()}
    found["told"] = {"value": exchange.told(here.rank()), "gathered": exchange.gathered(here.rank())}
    found["agreed"] = {"value": exchange.agreed(here.rank(), 5 - here.rank())}
    found["handed in"] = {"values": list(exchange.handed_in(f"of {here.rank()}"))}
    mine = torch.full((2, 2), here.rank()).t()
    exchange.as_the_first([mine, torch.empty(0)])
    found["as the first"] = {"value": mine}
    return found


def accompany(seat: Seat, store: Any) -> None:
    """Compute it as a further rank, and keep it."""
    with seated(seat, store):
        found = all_of_it()
    torch.save(found, Path(seat.job["folder"], f"{seat.rank}.pt"))


def fails(seat: Seat, store: Any) -> None:
    """Meet the others, then fail as the job says."""
    with seated(seat, store):
        exec(seat.job["code"], {"seat": seat})
