"""Capsules with dynamic routing, and what is left of them with one output.

Sabour, Frosst, Hinton, NeurIPS 2017.
"""

from typing import final

import torch
from torch import Tensor, nn


def squash(vector: Tensor) -> Tensor:
    """Return vectors (..., P) of the same direction and the length |v|^2 / (1 + |v|^2); 0 stays 0."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    short: Tensor = vector * (length / (1 + length.square()))
    return short


@final
class Capsules(nn.Module):
    """Routes I input capsules to O output capsules by agreement; (B, I, D) to (B, O, P) float32.

    Each input capsule predicts each output capsule by a matrix of its own. Only the last iteration's sum
    carries gradients, as in the code that the papers took it from. With one output the coupling is 1 whatever
    was agreed on: the layer is then a linear map and a squash (docs/methods/vt_adl.md, note 6).

    Attributes:
        weight: (O, I, P, D), drawn from N(0, 0.01^2).
    """

    def __init__(self, inputs: int, input_dim: int, outputs: int, output_dim: int, iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        self.weight = nn.Parameter(0.01 * torch.randn(outputs, inputs, output_dim, input_dim))

    def forward(self, capsules: Tensor) -> Tensor:
        """Return the output capsules, each shorter than 1."""
        with torch.autocast(capsules.device.type, enabled=False):
            prediction = torch.einsum("oipd,bid->boip", self.weight, capsules.to(self.weight.dtype))
            fixed = prediction.detach()
            logits = torch.zeros_like(fixed[..., 0])  # (B, O, I)
            for _ in range(self.iterations - 1):
                agreed = squash(torch.einsum("boi,boip->bop", logits.softmax(dim=1), fixed))
                logits = logits + torch.einsum("bop,boip->boi", agreed, fixed)
            return squash(torch.einsum("boi,boip->bop", logits.softmax(dim=1), prediction))
