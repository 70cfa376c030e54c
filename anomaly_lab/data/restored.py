"""The way back from the network's pixels to the photograph's."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from anomaly_lab.data.images import Placement


def restore_map(anomaly_map: np.ndarray, placement: Placement) -> np.ndarray:
    """Bring an (H, W) float32 map back to the original's pixels: (source.height, source.width) float32, bilinear."""
    seen = torch.from_numpy(anomaly_map[placement.target.slices].astype(np.float32))[None, None]
    return interpolate(seen, placement.source[2:], mode="bilinear", antialias=True)[0, 0].numpy()
