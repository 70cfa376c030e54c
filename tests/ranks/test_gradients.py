"""Every recipe that is trained has one gradient, whether one process computes a batch or two share it."""

import pytest
import torch

from anomaly_lab.ranks.companions import accompanied
from tests.ranks.recipes import RECIPES, all_of_them

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    alone = all_of_them()
    with accompanied(2, 2, "cpu", "tests.ranks.recipes:accompany", {"folder": str(folder)}):
        first = all_of_them()
    return alone, [first, torch.load(folder / "1.pt")]


@pytest.mark.parametrize("count", [5, 1], ids=["uneven", "of one image"])
@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_find_the_gradient_of_the_whole_batch(name, count, found):
    alone, both = found
    for rank in both:
        for what, value in alone[name, count].items():
            apart = (rank[name, count][what] - value).norm() / value.norm().clamp_min(1e-12)
            assert apart < 1e-8, (what, apart)
    assert alone[name, count]["gradient"].norm() > 0
