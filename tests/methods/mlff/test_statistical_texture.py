"""STLNet's modules against loops in float64; sizes, flat maps, zeros, mixed precision."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.mlff.statistical_texture import (
    CellTexture,
    PyramidTexture,
    StatisticalTexture,
    TextureEnhancement,
    counted,
    counted_pairs,
    exchanged,
    likeness,
    quantised,
)
from tests.methods.mlff.loops import Array, at_each, convolved, drawn, leaky, normed, settled, weight


# What a paper's reader would write: one position, one level, one pair at a time, in float64.
def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def levels_of(values: list[float], count: int) -> list[float]:
    low, high = min(values), max(values)
    return [low + (2 * n + 1) / (2 * count) * (high - low) for n in range(count)]


def encode(value: float, levels: list[float]) -> list[float]:
    spacing = levels[1] - levels[0]
    return [1 - abs(level - value) if abs(level - value) < spacing else 0.0 for level in levels]


def shares(encodings: list[list[float]]) -> Array:
    counts = np.zeros(len(encodings[0]))
    for encoding in encodings:
        for n, value in enumerate(encoding):
            counts[n] += value
    return counts / counts.sum()


def pair_shares(grid: list[list[list[float]]]) -> Array:
    count = len(grid[0][0])
    counts = np.zeros((count, count))
    for r in range(len(grid) - 1):
        for c in range(len(grid[0]) - 1):
            for i in range(count):
                for j in range(count):
                    counts[i, j] += grid[r][c][i] * grid[r + 1][c + 1][j]
    return counts / counts.sum()


def tem_loop(x: Array, module: TextureEnhancement) -> Array:
    first, norm, _, last = module.reduce
    reduced = at_each(convolved(x, first), lambda v: weight(last) @ leaky(normed(v, norm)))
    positions = [reduced[:, r, c] for r in range(x.shape[1]) for c in range(x.shape[2])]
    average = sum(positions) / len(positions)
    alike = [cosine(position, average) for position in positions]
    levels = levels_of(alike, module.levels)
    encodings = [encode(value, levels) for value in alike]
    counts = shares(encodings)
    statistics = []
    for level, count in zip(levels, counts, strict=True):
        one = np.maximum(weight(module.describe[2]) @ leaky(weight(module.describe[0]) @ [level, count]), 0)
        joined = weight(module.join[0]) @ np.concatenate([one, average])
        statistics.append(np.maximum(normed(joined, module.join[1]), 0))
    keys, queries, values = (
        [weight(part) @ one for one in statistics] for part in (module.key, module.query, module.value)
    )
    enhanced = []
    for key in keys:
        strength = np.exp([key @ query for query in queries])
        brought = sum(s / strength.sum() * value for s, value in zip(strength, values, strict=True))
        enhanced.append(np.maximum(normed(weight(module.out[0]) @ brought, module.out[1]), 0))
    painted = [sum(e * f for e, f in zip(encoding, enhanced, strict=True)) for encoding in encodings]
    return np.array(painted).T.reshape(x.shape)


def cell_loop(cell: Array, module: CellTexture) -> Array:
    """One cell, (C, h, w), to its (C / 2,) texture."""
    _, height, width = cell.shape
    average = cell.reshape(len(cell), -1).mean(1)
    alike = [[cosine(cell[:, r, c], average) for c in range(width)] for r in range(height)]
    levels = levels_of([value for row in alike for value in row], module.levels)
    counts = pair_shares([[encode(value, levels) for value in row] for row in alike])
    joined_weight = np.concatenate([weight(module.from_average), weight(module.from_counts)], axis=1)
    found = []
    for i, first in enumerate(levels):
        for j, second in enumerate(levels):
            inner = leaky(weight(module.describe[0]) @ [first, second, counts[i, j]])
            one = np.maximum(weight(module.describe[2]) @ inner, 0)
            joined = np.maximum(normed(joined_weight @ np.concatenate([average, one]), module.norm), 0)
            found.append(normed(weight(module.out[0]) @ joined, module.out[1]))
    return sum(found) / len(found)


def grid_loop(x: Array, module: CellTexture) -> Array:
    s, h, w = module.scale, x.shape[1] // module.scale, x.shape[2] // module.scale

    def one(r: int, c: int) -> Array:
        return cell_loop(x[:, r * h : r * h + h, c * w : c * w + w], module)

    rows = [[one(r, c) for c in range(s)] for r in range(s)]
    return np.array(rows).transpose(2, 0, 1)


def corners_aligned(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear, the outer pixels' centres stay; one pixel at a time."""
    out = np.zeros((len(x), *size))
    for r in range(size[0]):
        for c in range(size[1]):
            y, z = (r * (x.shape[1] - 1) / (size[0] - 1), c * (x.shape[2] - 1) / (size[1] - 1))
            a, b = (
                min(int(y), x.shape[1] - 2) if x.shape[1] > 1 else 0,
                min(int(z), x.shape[2] - 2) if x.shape[2] > 1 else 0,
            )
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (1 - abs(y - a - i)) * (1 - abs(z - b - j))
                if share > 0:
                    out[:, r, c] += share * x[:, a + i, b + j]
    return out


def ptfem_loop(x: Array, module: PyramidTexture) -> Array:
    reduced = at_each(x, lambda v: weight(module.reduce) @ v)
    maps = [corners_aligned(grid_loop(reduced, cells), x.shape[1:]) for cells in module.cells]
    last, norm = module.out[0], module.out[1]
    return at_each(np.concatenate(maps), lambda v: np.maximum(normed(weight(last) @ v, norm), 0))


@pytest.mark.parametrize("count", [2, 8, 128])
def test_levels_encodings_and_counts_are_the_definitions(count):
    values = drawn(3, 40).tanh()
    levels, encoding = quantised(values, count)
    for row in range(3):
        wanted = levels_of(values[row].tolist(), count)
        encodings = [encode(value, wanted) for value in values[row].tolist()]
        np.testing.assert_allclose(levels[row], wanted, rtol=1e-12)
        np.testing.assert_allclose(encoding[row].T, encodings, atol=1e-12)
        np.testing.assert_allclose(counted(encoding)[row], shares(encodings), atol=1e-12)
    # The nearest two, at the ends one.
    assert {int(found) for found in (encoding > 0).sum(1).flatten()} == {1, 2}


def test_pairs_are_counted_within_each_cell():
    values = drawn(2, 3, 20).tanh()
    _, encoding = quantised(values, 5)
    pairs = counted_pairs(encoding.reshape(2, 3, 5, 4, 5))
    for b in range(2):
        for cell in range(3):
            wanted = levels_of(values[b, cell].tolist(), 5)
            rows = values[b, cell].reshape(4, 5).tolist()
            grid = [[encode(value, wanted) for value in row] for row in rows]
            np.testing.assert_allclose(pairs[b, cell], pair_shares(grid), atol=1e-12)
    assert not torch.allclose(pairs, pairs.mT)  # which is upper left matters


def test_the_graph_gives_each_level_a_mean_of_the_values_weighted_by_its_key():
    key, query, value = (drawn(2, 3, 4, seed=seed) for seed in range(3))
    found = exchanged(key, query, value)
    for b in range(2):
        for level in range(4):
            strength = [math.exp(float(key[b, :, level] @ query[b, :, other])) for other in range(4)]
            wanted = sum(s / sum(strength) * value[b, :, other] for other, s in enumerate(strength))
            torch.testing.assert_close(found[b, :, level], wanted)


# The modules compute their statistics in float32, the loops in float64.
def test_tem_is_the_loop():
    torch.manual_seed(0)
    module = settled(TextureEnhancement(8, 6))
    x = drawn(2, 8, 5, 7)
    with torch.no_grad():
        found = module(x.float())
    for one, wanted in zip(found, x.numpy(), strict=True):
        np.testing.assert_allclose(one, tem_loop(wanted, module), rtol=1e-4, atol=1e-5)


def test_ptfem_is_the_loop_where_every_scale_divides_the_map():
    torch.manual_seed(0)
    module = settled(PyramidTexture(10, 8, 4, (1, 2, 3)))
    x = drawn(2, 10, 6, 12)
    with torch.no_grad():
        found = module(x.float())
    for one, wanted in zip(found, x.numpy(), strict=True):
        np.testing.assert_allclose(one, ptfem_loop(wanted, module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tem", "ptfem", "width"), [(True, True, 24), (True, False, 16), (False, True, 16)])
def test_stl_joins_its_parts_with_what_it_reduced(tem, ptfem, width):
    torch.manual_seed(0)
    module = settled(StatisticalTexture(5, 6, 8, tem, 4, ptfem, 4, (1, 2)))
    maps = drawn(1, 2, 6, 6), drawn(1, 3, 6, 6, seed=2)
    with torch.no_grad():
        found = module([level.float() for level in maps])[0]
    x = torch.cat(maps, dim=1)[0].numpy()
    wanted = at_each(x, lambda v: np.maximum(normed(weight(module.start[0]) @ v, module.start[1]), 0))
    if tem:
        wanted = np.concatenate([tem_loop(wanted, module.tem), wanted])
    if ptfem:
        wanted = np.concatenate([ptfem_loop(wanted, module.ptfem), wanted])
    assert module.width == width == len(found)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_map_has_one_level_and_no_nan(value):
    levels, encoding = quantised(torch.full((1, 9), value), 4)
    assert counted(encoding).tolist() == [[1, 0, 0, 0]]
    np.testing.assert_allclose(levels, value, atol=1e-5)
    assert counted_pairs(encoding.reshape(1, 4, 3, 3)).flatten().tolist() == [1.0] + [0.0] * 15
    torch.manual_seed(0)
    module = StatisticalTexture(3, 12, 8, True, 16, True, 4, (1, 2, 3))
    x = torch.full((2, 3, 12, 12), value, requires_grad=True)
    found = module([x])
    found.square().sum().backward()
    gradients = [x.grad, *(p.grad for p in module.parameters())]
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_zero_vectors_are_like_nothing_and_their_gradient_stays_small():
    x = torch.zeros(1, 3, 4)
    x[..., 0] = torch.tensor([3.0, 4.0, 0.0])
    x.requires_grad_()
    alike = likeness(x, x.detach()[..., :1])
    assert alike.tolist() == [[1, 0, 0, 0]]
    alike.sum().backward()
    assert x.grad.abs().max() <= 1e4
    assert likeness(torch.zeros(1, 3, 2), torch.zeros(1, 3, 1)).tolist() == [[0, 0]]


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (13, 11), (2, 3), (24, 24)])
def test_any_size_is_taken(size):
    module = settled(PyramidTexture(4, 8, 4, (1, 2, 3, 6)))
    with torch.no_grad():
        found = module(drawn(1, 4, *size).float())
        assert found.shape == (1, 8, *size)
    assert found.isfinite().all()


def test_under_bf16_levels_stay_apart():
    """Of 128 levels between 0.9 and 1 bf16 has 26; the modules quantise and count in float32 all the same."""
    torch.manual_seed(0)
    module = settled(StatisticalTexture(4, 12, 8, True, 128, True, 8, (1, 2)))
    seen: list[Tensor] = []
    module.tem.describe.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = module([drawn(1, 4, 12, 12).float() + 3])
    assert seen[0].dtype == torch.float32
    assert len(seen[0][0, 0].unique()) == 128
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channels": 6}, "model.texture.channels: 6; give a multiple of 4"),
        ({"size": 1}, "model.texture.size: 1; give at least 2"),
        ({"tem_levels": 1}, "model.texture.tem_levels: 1; give at least 2"),
        ({"ptfem_levels": 0}, "model.texture.ptfem_levels: 0; give at least 2"),
        ({"ptfem_scales": []}, "model.texture.ptfem_scales: []; give the cells"),
        ({"ptfem_scales": [1, 0]}, "model.texture.ptfem_scales: [1, 0]; give the cells"),
    ],
)
def test_what_cannot_be_is_one_line(changed, said):
    good = {"size": 6, "channels": 8, "tem": True, "tem_levels": 4, "ptfem": True, "ptfem_levels": 4}
    with pytest.raises(ConfigError) as error:
        StatisticalTexture(5, **{**good, "ptfem_scales": [1], **changed})
    assert str(error.value).startswith(said)
