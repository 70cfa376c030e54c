"""A frozen network in the form that computes fastest."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module, side: int = 64) -> nn.Module:
    """Fold each batch norm of an eval-mode network, which gives a list, into the convolution before it; return it.

    Which convolution comes before is seen in one pass over a ``side`` x ``side`` image, not guessed from the order of
    the modules. Timm's norms also hold an activation, which stays. Outputs change by rounding alone.
    """
    named = dict(network.named_modules())
    convolutions = {m: name for name, m in named.items() if isinstance(m, nn.Conv2d)}
    norms = {m: name for name, m in named.items() if isinstance(m, nn.BatchNorm2d) and not m._forward_hooks}
    if not norms:
        return network
    made: dict[int, tuple[Any, Tensor]] = {}  # the tensors are kept, so that no two share an id
    pairs: list[tuple[Any, Any]] = []

    def remember(module: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = (module, output)

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    hooks = [m.register_forward_hook(remember) for m in convolutions]
    hooks += [m.register_forward_pre_hook(match) for m in norms]
    with torch.no_grad():
        weight = next(network.parameters())
        levels = network(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    for hook in hooks:
        hook.remove()
    wanted = {made[id(level)][0] for level in levels if id(level) in made}  # what it gives out is not to change
    counts = [[pair[position] for pair in pairs] for position in (0, 1)]
    for convolution, norm in pairs:
        if counts[0].count(convolution) == counts[1].count(norm) == 1 and convolution not in wanted:
            _replace(network, convolutions[convolution], fuse_conv_bn_eval(convolution, norm))
            rest = [part for name, part in norm.named_children() if name in {"drop", "act"}]
            _replace(network, norms[norm], nn.Sequential(*rest))
    return network


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)
