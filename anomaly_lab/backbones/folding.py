"""A frozen network in the form that computes fastest."""

from collections.abc import Sequence
from typing import Any, final

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Exactly these, as a subclass may do anything with its weight.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def pairs(network: nn.Module, side: int = 64) -> list[tuple[str, str]]:
    """Return the names of the convolutions and batch norms of an eval-mode network that `fold` can join.

    The network gives a list. Which convolution comes before a norm is seen in one pass over a ``side`` x
    ``side`` image, not guessed from the order of the modules. It depends on the structure alone, not on the
    weights, so any weights of a network have a place in the folded one. A norm is folded if it alone takes
    what its convolution gives. None is where the network does not take the image.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return []
    image = torch.zeros(1, 3, side, side, device="cpu").to(next(network.parameters()))
    try:
        with torch.no_grad():
            return _seen(network, image)
    except (RuntimeError, AssertionError, ValueError):  # it does not take an image of this size
        return []


def fold(network: nn.Module, joined: Sequence[tuple[str, str]]) -> nn.Module:
    """Fold these batch norms into these convolutions, in place; the activation that a norm of timm has stays.

    Args:
        network: in eval mode.
        joined: what `pairs` returned of a network of this structure.
    """
    for convolution_name, norm_name in joined:
        convolution, norm = (network.get_submodule(name) for name in (convolution_name, norm_name))
        _replace(network, convolution_name, fuse_conv_bn_eval(convolution, norm))  # type: ignore[arg-type, type-var]
        rest = [part for name, part in norm.named_children() if name in {"drop", "act"}]
        _replace(network, norm_name, nn.Sequential(*rest))
    return network


@final
class Taken(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts who takes the tensors that were noted, but for what happens inside a norm."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, tuple[Any, Tensor]] = {}  # the tensors are kept, so that no two share an id
        self.inside = False
        self.others: set[Any] = set()  # convolutions that something else than a norm reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            given = (self.made.get(id(leaf)) for leaf in tree_leaves((args, kwargs)))
            self.others |= {found[0] for found in given if found}
        return func(*args, **(kwargs or {}))


def _seen(network: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Return the pairs, as a pass over an image shows them."""
    named = dict(network.named_modules())
    convolutions = {m: name for name, m in named.items() if type(m) in CONVOLUTIONS and not _hooked(m)}
    norms = {m: name for name, m in named.items() if type(m) in NORMS and not _hooked(m)}
    taken = Taken()
    met: list[tuple[Any, Any]] = []  # each norm, after the convolution that it takes

    def remember(module: nn.Module, _: object, output: Tensor) -> None:
        taken.made[id(output)] = (module, output)

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken.inside = True
        met.append((taken.made.get(id(inputs[0]), (None,))[0], module))

    def leave(*_: object) -> None:
        taken.inside = False

    hooks = [m.register_forward_hook(remember) for m in convolutions]
    hooks += [m.register_forward_pre_hook(match) for m in norms]
    hooks += [m.register_forward_hook(leave) for m in norms]
    with taken:
        levels: list[Tensor] = network(image)
    for hook in hooks:
        hook.remove()
    # What the network gives out is not to change.
    kept = taken.others | {taken.made[id(level)][0] for level in levels if id(level) in taken.made}
    counts = [[pair[position] for pair in met] for position in (0, 1)]
    return [
        (convolutions[convolution], norms[norm])
        for convolution, norm in met
        if convolution is not None
        and counts[0].count(convolution) == counts[1].count(norm) == 1
        and convolution not in kept
    ]


def _hooked(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)
