"""Moments that come batch by batch against numpy's of all vectors in float64."""

import numpy as np
import pytest
import torch

from anomaly_lab.estimators.moments import Moments
from tests.support.arrays import normal

# Among them such as leave a sum of squares less a squared sum no digit, and such as drift.
CASES = {
    "plain": normal(0, 97, 3, 5),
    "correlated": normal(0, 97, 3, 1) + 1e-2 * normal(1, 97, 3, 5),
    "a small spread beside a large mean": 1e4 + 1e-1 * normal(0, 97, 3, 5),
    "unlike scales": normal(0, 97, 3, 5) * torch.tensor([1e-4, 1e-2, 1.0, 1e2, 1e4]) + 1e3,
    "a drift": normal(0, 97, 3, 5) + torch.arange(97.0)[:, None, None],
    "a first batch far away": torch.cat([1e4 + normal(0, 8, 3, 5), normal(1, 89, 3, 5)]),
    "constant": torch.full((97, 3, 5), 0.3),
}


def streamed(vectors: torch.Tensor, size: int, *, joint: bool) -> Moments:
    moments = Moments(joint=joint)
    for batch in vectors.split(size):
        moments.update(batch)
    return moments


@pytest.mark.parametrize("size", [1, 8, 97])
@pytest.mark.parametrize("case", CASES)
def test_they_are_numpys_in_float64(case: str, size: int) -> None:
    vectors = CASES[case]
    exact = vectors.double().numpy()
    moments = streamed(vectors, size, joint=True)
    assert moments.count == 97
    mean = (moments.origin + moments.mean).double().numpy()
    error = np.abs(mean - exact.mean(axis=0))
    assert (error <= 2e-6 * exact.std(axis=0) + 1.2e-7 * np.abs(mean)).all(), error.max()
    for position in range(3):
        wanted = np.cov(exact[:, position], rowvar=False)
        scale = np.sqrt(np.outer(wanted.diagonal(), wanted.diagonal()))  # what rounding is relative to
        error = np.abs(moments.scatter[position].double().numpy() / 96 - wanted)
        assert (error <= 3e-6 * scale + 1e-12).all(), error.max()
    values = streamed(vectors, size, joint=False)
    np.testing.assert_allclose(values.scatter / 97, exact.var(axis=0), rtol=3e-6, atol=1e-12)
    assert torch.equal(values.mean, moments.mean)


def test_half_precision_is_summed_in_float32() -> None:
    vectors = normal(0, 64, 2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        moments = streamed(vectors, 8, joint=True)
    assert moments.scatter.dtype == torch.float32
    wanted = np.cov(vectors[:, 0].double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments.scatter[0] / 63, wanted, atol=1e-5)
