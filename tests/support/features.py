"""Extractors of features, with their weights, and images for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.backbones.weights import BUNDLED

NOTHING = Cache("unused", 0)


def noise(seed: int, count: int, height: int, width: int) -> Tensor:
    """Return (count, 3, height, width) float32 images of 8 bits in [0, 1], each value drawn by itself."""
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 3, height, width))
    return torch.from_numpy(drawn.astype(np.float32)) / 255


def extractor(
    name: str = BUNDLED, weights: str = "random", layers: Sequence[str] = ("blocks.2",), pool: str = "none"
) -> FeatureExtractor:
    """Return an extractor with the weights that were asked for."""
    made = FeatureExtractor(name, weights, layers, pool)
    made.load_pretrained()
    return made
