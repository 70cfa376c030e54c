"""What each of several ranks takes of batches and rows: everything once, in order, and nothing twice."""

import math

import numpy as np
import pytest
import torch

from anomaly_lab.data.batches import AddressedSampler, EvalDataset, SharedBatches, shared
from anomaly_lab.estimators.moments import Moments
from anomaly_lab.evaluation.doubts import Sameness
from anomaly_lab.ranks import exchange, here
from tests.support.arrays import normal

CASES = [(size, count, batch) for size in (2, 3, 4) for count in (4, 7, 9, 12, 13) for batch in (4, 5)]


@pytest.fixture
def rank(monkeypatch):
    """Return what makes this process a rank, without any other."""

    def be(number: int, size: int) -> None:
        monkeypatch.setattr(here.PLACE, "rank", number)
        monkeypatch.setattr(here.PLACE, "size", size)

    return be


@pytest.mark.parametrize(("size", "count", "batch"), CASES)
def test_the_ranks_draw_each_image_of_each_batch_once_and_in_its_order(rank, size, count, batch):
    order = AddressedSampler(count, 0, "shuffle")
    order.set_epoch(2)
    whole = list(order)
    found = []
    for number in range(size):
        rank(number, size)
        mine = list(SharedBatches(order, batch))
        assert len(mine) == len(SharedBatches(order, batch)) == math.ceil(count / batch)
        found.append(mine)
    for position, parts in enumerate(zip(*found, strict=True)):
        wanted = whole[position * batch : (position + 1) * batch]
        counted = []
        for number, part in enumerate(parts):
            rank(number, size)
            step = here.step_of(len(wanted))
            assert len(part) == max(step.mine, 1)
            assert step.all == len(wanted)
            counted += part[: step.mine]
            if not step.mine:
                assert part == wanted[-1:]
        assert counted == wanted
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_epoch_that_was_broken_off_is_gone_on_with(rank):
    order = AddressedSampler(9, 0, "shuffle")
    whole = list(order)
    order.leave_out(0, 4)
    rank(1, 2)
    assert list(SharedBatches(order, 4)) == [whole[6:8], whole[8:]]


def test_one_process_has_the_loader_that_it_had():
    order = AddressedSampler(9, 0, "shuffle")
    assert shared(order, 4) == {"batch_size": 4, "sampler": order}


@pytest.mark.parametrize(("size", "count", "batch"), [(1, 5, 2), (2, 7, 4), (3, 7, 4), (4, 13, 8)])
def test_the_rows_of_a_test_set_are_scored_once_in_portions_of_the_batch(rank, size, count, batch):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    rows = []
    for number in range(size):
        rank(number, size)
        data = EvalDataset(images, batch)
        for position in range(len(data)):
            found = data[position]
            assert len(found.row) <= math.ceil(batch / size)
            assert found.image[:, 0, 0, 0].tolist() == found.row.tolist()
            rows += found.row.tolist()
    assert rows == list(range(count))


def test_a_process_alone_gets_back_what_it_gave():
    values = torch.ones(2)
    assert exchange.gathered(3) == [3]
    assert exchange.told("x") == "x"
    assert list(exchange.handed_in("x")) == []
    assert exchange.summed(values) is values
    assert exchange.agreed(3, 0) == [3, 0]
    assert exchange.in_turn([values])[0] is values
    moments = Moments(joint=False)
    moments.update(normal(0, 3, 2))
    before = moments.scatter.clone()
    assert torch.equal(moments.of_all_ranks().scatter, before)


@pytest.mark.parametrize("parts", [(0, 7), (3, 4), (7, 0)])
def test_what_is_the_same_in_all_maps_adds_up(parts):
    maps = 50 + normal(1, 7, 5, 4).numpy()
    whole, joined, other = Sameness(), Sameness(), Sameness()
    whole.update(maps)
    for state, few in zip((joined, other), np.split(maps, [parts[0]]), strict=True):
        if len(few):
            state.update(few)
    joined.merge(other)
    assert joined.compute() == pytest.approx(whole.compute(), rel=1e-9)
    assert whole.compute() < 0.9
