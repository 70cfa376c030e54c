"""Two processes compute what one does: gradients, norms, moments, draws; and none outlives a failure."""

import os
import time

import pytest
import torch

from anomaly_lab.errors import RunError
from anomaly_lab.ranks import exchange, here
from anomaly_lab.ranks.companions import accompanied
from tests.ranks.work import all_of_it

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process finds, and what each of two does."""
    folder = tmp_path_factory.mktemp("ranks")
    alone = all_of_it()
    with accompanied(2, 2, "cpu", "tests.ranks.work:accompany", {"folder": str(folder)}):
        first = all_of_it()
    assert here.size() == 1
    return alone, [first, torch.load(folder / "1.pt")]


def close(ours, theirs, bound=1e-12):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=bound, atol=bound, msg=name)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_step_leaves_the_gradients_and_statistics_of_the_whole_batch(found, count):
    alone, both = found
    for rank in both:
        close(rank[f"step of {count}"], alone[f"step of {count}"])
    assert alone[f"step of {count}"]["gradient of 0.0.weight"].abs().max() > 0


def test_a_part_of_the_images_weighs_as_in_the_whole_batch(found):
    alone, both = found
    for rank in both:
        close(rank["parts"], alone["parts"])
        close(rank["one part"], alone["one part"])
        assert rank["no part"] == alone["no part"] == {}
    assert alone["parts"]["encoder.0.weight"].abs().max() > 0


@pytest.mark.parametrize("count", [1, 3, 4])
def test_random_numbers_of_an_image_are_the_same_on_whatever_rank(found, count):
    alone, both = found
    for name in ("uniform", "noise"):
        each = [rank[f"drawn for {count}"][name] for rank in both]
        if count == 1:  # the second rank computes the same image along
            torch.testing.assert_close(each[1], each[0], rtol=0, atol=0)
            each = each[:1]
        torch.testing.assert_close(torch.cat(each), alone[f"drawn for {count}"][name], rtol=0, atol=0)
    for rank in both:
        torch.testing.assert_close(rank[f"drawn for {count}"]["next"], alone[f"drawn for {count}"]["next"])


def test_moments_are_those_of_all_and_alike_to_the_bit(found):
    alone, both = found
    for case in ("moments", "sums"):
        close(both[0][case], alone[case], 2e-6)
        for name, value in both[0][case].items():
            assert torch.equal(value, both[1][case][name]), (case, name)


def test_what_is_exchanged_comes_in_the_order_of_the_ranks(found):
    _, both = found
    for rank in both:
        assert rank["in turn"]["parts"].tolist() == [0, 0, 1, 1, 10, 10, 11, 11, 20, 20]
        assert rank["told"] == {"value": 0, "gathered": [0, 1]}
        assert rank["agreed"]["value"] == [1, 5]
        assert rank["as the first"]["value"].tolist() == [[0, 0], [0, 0]]
    assert [rank["handed in"]["values"] for rank in both] == [["of 1"], []]


def test_a_range_that_is_guessed_is_that_of_the_whole_batch(found):
    alone, both = found
    for rank in both:
        torch.testing.assert_close(rank["ssim"]["value"], alone["ssim"]["value"])


# Failures


def waits_for_the_other():
    exchange.gathered(0)
    exchange.gathered(0)


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        ("raise MemoryError('so much')", RuntimeError, r"(?s)rank 1 of 2 failed\n.*MemoryError: so much"),
        (
            "from anomaly_lab.errors import DataError\nraise DataError('a.png: bad')",
            RunError,
            r"^rank 1 of 2: a\.png: bad$",
        ),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            RunError,
            r"^rank 1 of 2 was killed by signal 9; the same command goes on",
        ),
    ],
)
def test_the_end_of_a_rank_ends_the_run_and_says_why(code, error, line):
    began = time.monotonic()
    with (
        pytest.raises(error, match=line),
        accompanied(2, 2, "cpu", "tests.ranks.work:fails", {"code": code}),
    ):
        waits_for_the_other()
    assert time.monotonic() - began < 60
    assert here.size() == 1


def test_an_error_of_the_first_rank_ends_the_others(tmp_path):
    code = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"

    def goes_wrong():
        with accompanied(2, 2, "cpu", "tests.ranks.work:fails", {"code": code}):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.05)
            raise RunError("mine")

    with pytest.raises(RunError, match=r"^mine$"):
        goes_wrong()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
