"""Values drawn for tests."""

import numpy as np
import torch
from torch import Tensor


def normal(seed: int, *shape: int) -> Tensor:
    """Return float32 values of the standard normal distribution; another seed gives others."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()
