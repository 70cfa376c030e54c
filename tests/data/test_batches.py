"""The order of an epoch."""

import numpy as np

from anomaly_lab.data.batches import AddressedSampler


def test_shuffling_draws_each_row_once_and_another_order_each_epoch():
    sampler = AddressedSampler(50, 7, "shuffle")
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again
    assert sorted(draw.row for draw in first) == sorted(draw.row for draw in second) == list(range(50))
    assert [draw.row for draw in first] != [draw.row for draw in second]
    assert [draw.position for draw in second] == list(range(50)) == list(range(len(sampler)))
    assert {draw.epoch for draw in second} == {1}
    assert list(AddressedSampler(50, 8, "shuffle")) != first


def test_replacement_draws_independently():
    sampler = AddressedSampler(1000, 7, "replacement")
    rows = np.array([draw.row for draw in sampler])
    assert rows.min() >= 0
    assert rows.max() < 1000
    # 1000 independent draws meet 1000 (1 - 1/e) = 632 rows, with a standard deviation of 10.
    assert 592 < len(set(rows.tolist())) < 672


def test_an_epoch_that_was_begun_goes_on_where_it_was():
    whole, rest = (AddressedSampler(10, 7, "shuffle", ratio=0.5) for _ in range(2))
    rest.leave_out(2, 4)
    for epoch, first in ((2, 4), (3, 0)):
        whole.set_epoch(epoch)
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[first:]
    assert len(rest) == 15
