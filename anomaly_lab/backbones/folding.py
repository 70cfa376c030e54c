"""A frozen network in the form that computes fastest."""

import copy
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


def folded(network: nn.Module, side: int = 64) -> nn.Module:
    """Return an eval-mode network with its batch norms folded into the convolutions before them.

    The network gives a list. Which convolution comes before is seen in one pass over a ``side`` x ``side``
    image, not guessed from the order of the modules; timm's norms also hold an activation, which stays. What
    is folded depends on the structure alone, not on the weights, so any weights of a network have a place in
    the folded one. A norm is folded if it alone takes what its convolution gives. Where the network does not
    take the image it comes back as it was.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    image = torch.zeros(1, 3, side, side, device="cpu").to(next(network.parameters()))
    candidate = copy.deepcopy(network)
    try:
        with torch.no_grad():
            _fold(candidate, image)
    except (RuntimeError, AssertionError, ValueError):  # it does not take an image of this size
        return network
    return candidate


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


def _fold(network: nn.Module, image: Tensor) -> None:
    """Fold in place."""
    named = dict(network.named_modules())
    convolutions = {m: name for name, m in named.items() if type(m) in CONVOLUTIONS and not _hooked(m)}
    norms = {m: name for name, m in named.items() if type(m) in NORMS and not _hooked(m)}
    taken = Taken()
    pairs: list[tuple[Any, Any]] = []

    def remember(module: nn.Module, _: object, output: Tensor) -> None:
        taken.made[id(output)] = (module, output)

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken.inside = True
        pairs.append((taken.made.get(id(inputs[0]), (None,))[0], module))

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
    counts = [[pair[position] for pair in pairs] for position in (0, 1)]
    for convolution, norm in (pair for pair in pairs if pair[0] is not None):
        if counts[0].count(convolution) == counts[1].count(norm) == 1 and convolution not in kept:
            _replace(network, convolutions[convolution], fuse_conv_bn_eval(convolution, norm))
            rest = [part for name, part in norm.named_children() if name in {"drop", "act"}]
            _replace(network, norms[norm], nn.Sequential(*rest))


def _hooked(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)
