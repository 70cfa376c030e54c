"""Networks of timm: cut below the deepest layer wanted, frozen or to be trained."""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor

from anomaly_lab.backbones.folding import fold, pairs
from anomaly_lab.backbones.same_padding import unpadded
from anomaly_lab.errors import ConfigError


def sketched(name: str) -> tuple[Any, dict[str, Any]]:
    """Return the network without memory for its weights, and how timm makes it give its layers.

    The latter are arguments of `timm.create_model`. A transformer that can take images of other sizes than it
    was trained on is told to.

    Raises:
        ConfigError: timm has none of this name, or it gives no layers.
    """
    making: dict[str, Any] = {"features_only": True}
    if is_model_in_modules(name, ("efficientnet", "mobilenetv3")):
        making["feature_cls"] = "getter"  # the class of their own computes the whole network
    try:
        with torch.device("meta"):
            sketch = timm.create_model(name, **making)
            with suppress(TypeError):  # what a network says that knows no such argument
                sketch = timm.create_model(name, **making, dynamic_img_size=True)
                making["dynamic_img_size"] = True
    except (RuntimeError, AssertionError, AttributeError) as error:
        raise ConfigError(f"model.backbone.name: {name} cannot be used ({error}); give another") from error
    return sketch, making


@lru_cache(maxsize=16)  # the cells of a sweep ask the same
def chosen(name: str, layers: tuple[str, ...]) -> tuple[dict[str, Any], list[int], list[dict[str, Any]]]:
    """Return how timm makes the network down to the deepest of these layers, and what it says of them.

    It says their places in its list, and their facts.

    Raises:
        ConfigError: it has no such layer; it says which there are.
    """
    whole, making = sketched(name)
    known = [level["module"] for level in whole.feature_info.info]
    wrong = [layer for layer in layers if layer not in known]
    if wrong or not layers or len(set(layers)) < len(layers):
        problem = f"{wrong[0]} is no layer of {name}" if wrong else "give at least one layer, and each once"
        raise ConfigError(f"model.backbone.layers: {problem}; {name} has {', '.join(known)}")
    indices = sorted(known.index(layer) for layer in layers)
    order = [indices.index(known.index(layer)) for layer in layers]
    facts = [whole.feature_info.info[known.index(layer)] for layer in layers]
    return making | {"out_indices": indices}, order, facts


@lru_cache(maxsize=16)
def check_takes(name: str, layers: tuple[str, ...], height: int, width: int) -> None:
    """Raise ConfigError unless the network takes images of this size and makes (B, C, h, w) maps of them."""
    with torch.device("meta"):
        network: Any = timm.create_model(name, **chosen(name, layers)[0]).eval()
    try:
        levels = network(torch.empty(1, 3, height, width, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"data.image_size: {name} takes no {height} x {width} ({reason})") from error
    for level, channels in zip(levels, network.feature_info.channels(), strict=True):
        if level.dim() != 4 or level.shape[1] != channels:
            found = f"maps of {tuple(level.shape[1:])} for {channels} channels, which do not come first"
            raise ConfigError(f"model.backbone.name: {name} gives {found}; give another network")


def statistics(network: Any) -> dict[str, Tensor]:
    """Return the ``mean`` and ``std`` that its weights want images normalised by, (3, 1, 1) each."""
    return {key: torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")}


def trained(network: Any) -> Any:
    """Return the network with its norms as they are, laid out so that it trains fastest."""
    return network.to(memory_format=torch.channels_last)


@lru_cache(maxsize=16)
def foldable(name: str, layers: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return which convolutions and norms of the network down to these layers can be joined; see `pairs`."""
    with torch.device("meta"):
        return tuple(pairs(timm.create_model(name, **chosen(name, layers)[0]).eval()))


LAST: dict[Any, tuple[Any, Tensor]] = {}  # the last network of random weights, and the generator after it
SMALL = 2**24  # weights: what is larger is not kept, as its memory is worth more than its time


def random_frozen(name: str, layers: tuple[str, ...]) -> Any:
    """Return the network down to these layers, frozen, with weights that torch's generator draws.

    The next cell of a sweep mostly finds the generator in the same state: it gets a copy, in a fifth of the
    time, and leaves the generator as the drawing would have.
    """
    key = name, layers, torch.empty(0).device, torch.get_rng_state().numpy().tobytes()
    if key in LAST:
        network, after = LAST[key]
        torch.set_rng_state(after)
        return deepcopy(network)
    network = frozen(timm.create_model(name, **chosen(name, layers)[0]), foldable(name, layers))
    LAST.clear()
    if sum(weight.numel() for weight in network.parameters()) <= SMALL:
        LAST[key] = deepcopy(network), torch.get_rng_state()
    return network


def frozen(network: Any, joined: Sequence[tuple[str, str]]) -> Any:
    """Return the network in eval mode, without gradients, in the form that computes fastest; it is changed.

    Args:
        network: of timm.
        joined: what `foldable` says of it.
    """
    fast = unpadded(fold(network.eval(), joined)).requires_grad_(requires_grad=False)
    return fast.to(memory_format=torch.channels_last)  # on a CPU nearly twice as fast
