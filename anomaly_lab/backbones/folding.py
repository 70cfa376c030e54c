"""A frozen network in the form that computes fastest."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module, side: int = 64) -> nn.Module:
    """Return an eval-mode network with its batch norms folded into the convolutions before them.

    The network gives a list. Which convolution comes before is seen in one pass over a ``side`` x ``side``
    image, not guessed from the order of the modules; timm's norms also hold an activation, which stays. A
    second pass checks that outputs changed by rounding alone. Where it cannot be done the network comes back
    as it was.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    weight = next(network.parameters())
    # Not from torch's own generator: what is drawn after it would depend on whether a network was folded.
    image = torch.rand(1, 3, side, side, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    image, candidate = image.to(weight), copy.deepcopy(network)
    try:
        with torch.no_grad():
            wanted = _fold(candidate, image)
            found = candidate(image)
    except (RuntimeError, AssertionError, ValueError):  # it does not take an image of this size
        return network
    return candidate if weight.is_meta or all(map(_close, found, wanted)) else network


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-3 * wanted.abs().max())


def _fold(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Fold in place; return what the network gave before."""
    named = dict(network.named_modules())
    convolutions = {m: name for name, m in named.items() if isinstance(m, nn.Conv2d)}
    norms = {m: name for name, m in named.items() if isinstance(m, nn.BatchNorm2d) and not m._forward_hooks}
    made: dict[int, tuple[Any, Tensor]] = {}  # the tensors are kept, so that no two share an id
    pairs: list[tuple[Any, Any]] = []

    def remember(module: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = (module, output)

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    hooks = [m.register_forward_hook(remember) for m in convolutions]
    hooks += [m.register_forward_pre_hook(match) for m in norms]
    levels: list[Tensor] = network(image)
    for hook in hooks:
        hook.remove()
    # What the network gives out is not to change.
    given = {made[id(level)][0] for level in levels if id(level) in made}
    counts = [[pair[position] for pair in pairs] for position in (0, 1)]
    for convolution, norm in pairs:
        if counts[0].count(convolution) == counts[1].count(norm) == 1 and convolution not in given:
            _replace(network, convolutions[convolution], fuse_conv_bn_eval(convolution, norm))
            rest = [part for name, part in norm.named_children() if name in {"drop", "act"}]
            _replace(network, norms[norm], nn.Sequential(*rest))
    return [level.clone() for level in levels]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)
