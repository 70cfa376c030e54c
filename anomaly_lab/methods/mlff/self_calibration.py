"""MLFF's semantic branch: the self-calibrated convolution of SCNet.

Liu, Hou, Cheng, Wang, Feng, CVPR 2020.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import BatchNormOfAny, conv


@final
class SelfCalibratedConv(nn.Module):
    """A convolution gated by what a smaller copy of its input says; (B, C, h, w) to the same shape.

    ``out = ReLU BN k4(BN k3(x) * sigmoid(x + up(BN k2(pool(x)))))``, each k a 3x3 convolution without bias.
    As in SCNet's code the pooling leaves out what a whole window does not fit, and the way up repeats values.

    Args:
        channels: of the input.
        rate: side of the pooling's windows; a map that is smaller is pooled whole.
    """

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        if rate < 1:
            raise ConfigError(
                f"model.calibration_rate: {rate}; give at least 1, or switch off model.calibration"
            )
        self.rate = rate
        self.latent, self.original = (
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), BatchNormOfAny(channels))
            for _ in range(2)
        )
        self.out = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the calibrated map."""
        size = (x.shape[2], x.shape[3])
        pooled = avg_pool2d(x, (min(self.rate, size[0]), min(self.rate, size[1])))
        gate = torch.sigmoid(x + interpolate(self.latent(pooled), size))
        calibrated: Tensor = self.out(self.original(x) * gate)
        return calibrated
