"""VT-ADL's way from all tokens to one vector as its text has it: a linear projection.

Mishra et al., ISIE 2021; the released code has capsules there (docs/methods/vt_adl.md, note 6).
"""

from typing import final

import torch
from torch import Tensor, nn

from anomaly_lab.layers.capsules import squash


@final
class LinearProjection(nn.Module):
    """A linear map without bias; (B, I) to (B, P) float32.

    The weights are drawn as `Capsules` draws them, from N(0, 0.01^2), so that a comparison with it changes
    the squash alone.

    Args:
        inputs: I, the values of all tokens of an image.
        outputs: P, the values of the vector.
        squashed: the vector keeps its direction and becomes shorter than 1: what routing to one capsule is.
    """

    def __init__(self, inputs: int, outputs: int, *, squashed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(outputs, inputs))
        self.squashed = squashed

    def forward(self, x: Tensor) -> Tensor:
        """Return the vector, in float32 also under mixed precision."""
        with torch.autocast(x.device.type, enabled=False):
            vector: Tensor = x.to(self.weight.dtype) @ self.weight.T
            return squash(vector) if self.squashed else vector
