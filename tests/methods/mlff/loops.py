"""What a paper's reader would write in float64, one position at a time; modules whose norms do something."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return float64 values of the standard normal distribution."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def settled(module: nn.Module, seed: int = 1) -> nn.Module:
    """Return it in eval mode, with running statistics and affine weights of norms that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for values, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight, 0.5)):
                values.data.copy_(low + torch.rand(values.shape, generator=generator))
            part.bias.data.copy_(torch.rand(part.bias.shape, generator=generator) - 0.5)
    return module.eval()


def weight(layer: nn.Module) -> Array:
    """Return a layer's weights as a matrix."""
    return layer.weight.detach().double().numpy().reshape(layer.weight.shape[0], -1)


def normed(vector: Array, norm: nn.Module) -> Array:
    """Return a vector after a batch norm."""
    mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    scale, shift = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    return (vector - mean) / np.sqrt(variance + norm.eps) * scale + shift


def leaky(vector: Array) -> Array:
    """Return a vector after a leaky ReLU."""
    return np.where(vector > 0, vector, 0.01 * vector)


def convolved(x: Array, layer: nn.Conv2d) -> Array:
    """Return (C, H, W) after a 3x3 convolution with zeros around."""
    kernel = layer.weight.detach().double().numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((kernel.shape[0], *x.shape[1:]))
    for r in range(x.shape[1]):
        for c in range(x.shape[2]):
            out[:, r, c] = np.einsum("oikl,ikl->o", kernel, padded[:, r : r + 3, c : c + 3])
    return out


def at_each(x: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function of a vector to each position of (C, H, W)."""
    rows = [[function(x[:, r, c]) for c in range(x.shape[2])] for r in range(x.shape[1])]
    return np.stack(rows).transpose(2, 0, 1)
