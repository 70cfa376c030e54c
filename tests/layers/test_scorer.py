"""The score of an image, from its map, against a filter of SciPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.scorer import Scorer


@pytest.mark.parametrize("kernel_size", [1, 5, 21])
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_the_score_is_that_of_a_zero_padded_mean_filter(kernel_size, reduce):
    anomaly_map = torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(0))
    prediction = Scorer(kernel_size, reduce)(anomaly_map)
    for one, score in zip(anomaly_map.double().numpy(), prediction.score.tolist(), strict=True):
        smooth = uniform_filter(one, kernel_size, mode="constant")
        assert score == pytest.approx(np.max(smooth) if reduce == "max" else np.mean(smooth), rel=1e-5)
    assert torch.equal(prediction.anomaly_map, anomaly_map)


def test_an_even_kernel_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"model\.scorer\.kernel_size"):
        Scorer(4, "max")
