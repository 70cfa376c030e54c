"""A fit of a method on frozen features, as the trainer makes it, on few small images."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import interpolate

from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.methods.fitted import SinglePassMethod
from tests.support.features import extractor, noise
from tests.support.train_batches import unlabelled

SIZE = 64
TRAIN = noise(0, 12, SIZE, SIZE)
TEST = noise(1, 4, SIZE, SIZE)
Method = TypeVar("Method", bound=SinglePassMethod)


@lru_cache
def backbone(pool: str = "none", layers: Sequence[str] = ("blocks.1", "blocks.2")) -> FeatureExtractor:
    """Return an extractor with the bundled weights, each kind once."""
    return extractor(weights="bundled", layers=layers, pool=pool)


def fitted(method: Method, *batches: Tensor) -> Method:
    """Return the method, fitted on these batches; if there are none, on two of unlike length."""
    for batch in batches or (TRAIN[:8], TRAIN[8:]):
        method.training_step(unlabelled(batch), 0)
    method.on_train_epoch_end()
    return method.eval()


def smooth(coarse: np.ndarray, sigma: float, upsampling: str = "bilinear") -> np.ndarray:
    """Return (B, h, w) maps at the images' size, enlarged by PyTorch, then smoothed by SciPy."""
    exact = torch.from_numpy(coarse).double()[:, None]
    large = interpolate(exact, (SIZE, SIZE), mode=upsampling)[:, 0].numpy()
    return np.stack([gaussian_filter(one, sigma) for one in large])
