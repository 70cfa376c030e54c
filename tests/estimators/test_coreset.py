"""The greedy coreset against the traversal written out in float64."""

import numpy as np
import pytest
import torch

from anomaly_lab.estimators import coreset
from anomaly_lab.estimators.coreset import greedy_coreset


def blobs(seed: int, count: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((7, width))
    around = centres[rng.integers(7, size=count)]
    return torch.from_numpy(around + rng.standard_normal((count, width))).float()


def traversal(points: torch.Tensor, first: int, count: int) -> list[int]:
    """Farthest first, one pass over all points per choice; numpy's argmax is the lowest row of equals."""
    x = points.double().numpy()
    distance, chosen = np.full(len(x), np.inf), [first]
    while True:
        distance = np.minimum(distance, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1
        if len(chosen) == count:
            return chosen
        chosen.append(int(distance.argmax()))


@pytest.fixture(params=[(2048, 1024), (40, 11)], ids=["one block", "many blocks"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "CANDIDATES", request.param[0])
    monkeypatch.setattr(coreset, "BLOCK", request.param[1])


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("width", [2, 9, 64])
def test_rows_are_those_of_the_traversal_written_out(width: int, seed: int) -> None:
    points = blobs(seed, 2500, width)
    rows = greedy_coreset(points, 300, None, seed)
    assert rows.dtype == torch.int64
    assert rows.tolist() == traversal(points, int(rows[0]), 300)


@pytest.mark.usefixtures("sizes")
def test_close_calls_are_those_of_float64() -> None:
    """Corners of a box whose sides differ by a millionth: float32 cannot tell their distances apart."""
    rng = np.random.default_rng(0)
    sides = 1 + rng.integers(0, 8, 14) * 2.0**-20
    points = torch.from_numpy(rng.choice([-1, 1], (1200, 14)) * sides).float()
    rows = greedy_coreset(points, 200, None, 0)
    assert rows.tolist() == traversal(points, int(rows[0]), 200)


@pytest.mark.usefixtures("sizes")
def test_ties_go_to_the_lowest_row() -> None:
    rng = np.random.default_rng(0)
    # 216 distinct points: hundreds are equally far.
    grid = torch.from_numpy(rng.integers(0, 6, (1500, 3))).float()
    rows = greedy_coreset(grid, 400, None, 3)
    assert rows.tolist() == traversal(grid, int(rows[0]), 400)
    distinct = len(np.unique(grid, axis=0))
    assert len(np.unique(grid[rows[:distinct]], axis=0)) == distinct


@pytest.mark.usefixtures("sizes")
def test_doubles_are_chosen_last_and_no_row_twice() -> None:
    few = blobs(4, 30, 12)
    points = few[torch.from_numpy(np.random.default_rng(1).integers(30, size=900))]
    rows = greedy_coreset(points, 200, None, 0)
    assert rows.tolist() == traversal(points, int(rows[0]), 200)
    assert len(set(rows.tolist())) == 200
    same = greedy_coreset(torch.full((500, 3), 0.1), 100, None, 0)
    assert same.tolist() == traversal(torch.full((500, 3), 0.1), int(same[0]), 100)


@pytest.mark.usefixtures("sizes")
def test_far_clusters_do_not_cost_digits() -> None:
    """Products in float32 know these distances to 0.1, a hundred times what parts the points of a cluster."""
    rng = np.random.default_rng(0)
    sides = np.where(rng.random(1200) < 0.5, -1000, 1000)[:, None]
    points = torch.from_numpy(sides + 1e-2 * rng.standard_normal((1200, 5))).float()
    rows = greedy_coreset(points, 100, None, 0)
    assert rows.tolist() == traversal(points, int(rows[0]), 100)


@pytest.mark.usefixtures("sizes")
def test_an_offset_does_not_cost_digits() -> None:
    points = blobs(3, 1500, 6) + 5000
    rows = greedy_coreset(points, 150, None, 0)
    assert rows.tolist() == traversal(points, int(rows[0]), 150)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(5, 1000, 16)
    monkeypatch.setattr(coreset, "WORKING_NUMBERS", 4000)
    rows = greedy_coreset(points, 100, None, 1)
    assert rows.tolist() == traversal(points, int(rows[0]), 100)


def radius(points: torch.Tensor, rows: torch.Tensor) -> float:
    """How far the farthest point is from the chosen ones."""
    return torch.cdist(points.double(), points[rows].double()).amin(dim=1).max().item()


def test_a_projection_keeps_the_cover() -> None:
    points = blobs(6, 3000, 4) @ blobs(7, 4, 200)  # four dimensions in 200
    exact, projected = (greedy_coreset(points, 100, projection, 0) for projection in (None, 60))
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(3000)[:100])
    assert len(set(projected.tolist())) == 100
    assert not torch.equal(exact, projected)
    assert radius(points, projected) < 1.3 * radius(points, exact) < radius(points, drawn)
    assert torch.equal(greedy_coreset(points, 100, 200, 0), exact)  # not fewer dimensions: no projection


def test_the_seed_alone_decides() -> None:
    points = blobs(7, 500, 8)
    state = torch.get_rng_state()
    first = [greedy_coreset(points, 20, 4, seed) for seed in (0, 0, 1)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert len({int(greedy_coreset(points, 1, None, seed)) for seed in range(20)}) > 10
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [30, 31])
def test_more_than_there_are_means_all(count: int) -> None:
    assert greedy_coreset(blobs(8, 30, 4), count, None, 0).tolist() == list(range(30))


def test_half_precision_and_autocast_change_nothing() -> None:
    points = blobs(9, 600, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        rows = greedy_coreset(points, 50, None, 0)
    assert rows.tolist() == traversal(points.float(), int(rows[0]), 50)


def begun_at_the_mean(points: torch.Tensor, starts: torch.Tensor, count: int) -> list[int]:
    """The authors' loop: the mean distance to the starts is a column beside those to what was chosen."""
    x = points.double().numpy()
    columns = [np.linalg.norm(x[:, None] - x[starts.numpy()][None], axis=2).mean(axis=1)]
    chosen: list[int] = []
    while len(chosen) < count:
        distance = np.min(columns, axis=0)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        columns.append(np.linalg.norm(x - x[chosen[-1]], axis=1))
    return chosen


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize(("width", "count"), [(2, 300), (9, 300), (64, 120)])
def test_beginning_at_the_mean_of_ten_is_the_authors_loop(width: int, count: int) -> None:
    points = blobs(5, 1500, width)
    rows = greedy_coreset(points, count, None, 3, "mean_of_ten")
    starts = torch.randperm(len(points), generator=torch.Generator().manual_seed(3))[:10]
    assert rows.tolist() == begun_at_the_mean(points, starts, count)
    assert rows.tolist() != greedy_coreset(points, count, None, 3).tolist()
    assert len(set(rows.tolist())) == count


def test_fewer_vectors_than_ten_begin_at_the_mean_of_all() -> None:
    points = blobs(6, 7, 4)
    starts = torch.arange(7)
    assert greedy_coreset(points, 4, None, 0, "mean_of_ten").tolist() == begun_at_the_mean(points, starts, 4)
    assert greedy_coreset(points, 3, 2, 0, "mean_of_ten").shape == (3,)
