"""CapsNet with a network that takes no time, and its images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_lab.methods.capsnet.method import CapsNet
from anomaly_lab.methods.capsnet.network import CapsuleNetwork
from anomaly_lab.types import TrainBatch
from tests.support.training import told

SIDE = 12
NETWORK = {
    "image_size": SIDE,
    "colours": "rgb",
    "convolutions": [[5, 3, 1]],
    "primary": [3, 4, 5, 2],  # 3 x 3 places of 3 maps
    "class_dim": 6,
    "routing_iterations": 3,
    "decoder": [7, 9],
}
METHOD = {
    "margin_present": 0.9,
    "margin_absent": 0.1,
    "absent_weight": 0.5,
    "reconstruct": "normal",
    "reconstruction_weight": 5e-4,
    "learning_rate": 1e-3,
    "decay": 0.9,
    "decay_periods": 50,
    "score": "length_difference",
}


def network(**changes: Any) -> CapsuleNetwork:
    """Return a narrow network, whose capsules are as long and agree as much as trained ones."""
    torch.manual_seed(0)
    made = CapsuleNetwork(**NETWORK | changes)
    made.primary.weight.data *= 5
    made.classes.weight.data *= 100
    return made


def method(**changes: Any) -> CapsNet:
    """Return the method with a narrow network; a change of a network's key goes there."""
    inner = {key: changes.pop(key) for key in list(changes) if key in NETWORK}
    return told(CapsNet(network(**inner), **METHOD | changes).eval())


def images(count: int, *, side: int = SIDE) -> Tensor:
    """Return noise, (count, 3, side, side) float32 in [0, 1]."""
    return torch.from_numpy(np.random.default_rng(count).random((count, 3, side, side))).float()


def batch_of(image: Tensor, label: Tensor) -> TrainBatch:
    """Return the images with their labels and no mask."""
    return TrainBatch(image, image, torch.zeros(len(image), *image.shape[2:], dtype=torch.bool), label)
