"""The checkpoints that DRAEM's authors released (github.com/VitjanZ/DRAEM), read into our two networks.

A training there ends in two files, the reconstruction network's NAME.pckl and the discriminative network's
NAME_seg.pckl, each a plain state dict.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork

KEY = "model.init_from"
REVERSED = [2, 1, 0]  # their images keep OpenCV's order, blue, green, red; ours are RGB
BOTH_REVERSED = [2, 1, 0, 5, 4, 3]  # the reconstruction's channels, then the image's


def released_files(file: str | Path) -> tuple[Path, Path]:
    """Return NAME.pckl and NAME_seg.pckl, given the first; whether they exist is not asked."""
    first = Path(file)
    return first, first.with_name(f"{first.stem}_seg{first.suffix}")


def check_released(file: str | Path) -> None:
    """Raise ConfigError unless both files are there."""
    first, second = released_files(file)
    if not first.is_file():
        raise ConfigError(f"{KEY}: no file {first}; give random, or NAME.pckl of the authors' checkpoints")
    if not second.is_file():
        raise ConfigError(f"{KEY}: no file {second} beside {first.name}; it holds the discriminative network")


def load_released(
    reconstructive: ReconstructiveNetwork, discriminative: DiscriminativeNetwork, file: str | Path
) -> None:
    """Give both networks the weights of NAME.pckl and of NAME_seg.pckl beside it.

    The first convolutions and the reconstruction's last one are turned from BGR to RGB: of an RGB image our
    networks say what the authors' say of the same image in BGR.

    Raises:
        ConfigError: a file cannot be read, or lacks a weight, has one more, or one of another shape.
    """
    first, second = released_files(file)
    ours = reconstructive.state_dict()
    found = _translated(first, _read(first), {key: _theirs_reconstructive(key) for key in ours}, ours)
    found["encoder.0.0.weight"] = found["encoder.0.0.weight"][:, REVERSED]
    found["out.weight"] = found["out.weight"][REVERSED]
    found["out.bias"] = found["out.bias"][REVERSED]
    ours = discriminative.state_dict()
    others = _translated(second, _read(second), {key: _theirs_discriminative(key) for key in ours}, ours)
    others["encoder.0.0.weight"] = others["encoder.0.0.weight"][:, BOTH_REVERSED]
    reconstructive.load_state_dict(found)
    discriminative.load_state_dict(others)


def _theirs_reconstructive(key: str) -> str:
    """Return what the authors' reconstruction network calls a weight of ours."""
    return _renamed(key, "encoder", "decoder", lambda step: str(step + 1))


def _theirs_discriminative(key: str) -> str:
    """Return what the authors' U-Net calls a weight of ours; its first step up is called _b."""
    return _renamed(key, "encoder_segment", "decoder_segment", lambda step: str(step or "_b"))


def _renamed(key: str, encoder: str, decoder: str, step_name: Callable[[int], str]) -> str:
    """Return another name of a weight; both number the layers within a block alike."""
    place = re.fullmatch(r"(encoder|ups|decoder)\.(\d+)\.(.+)", key)
    if place is None:
        return f"{decoder}.fin_out.0.{key.removeprefix('out.')}"
    number = int(place[2])
    if place[1] == "encoder":
        return f"{encoder}.block{number + 1}.{place[3]}"
    return f"{decoder}.{'up' if place[1] == 'ups' else 'db'}{step_name(number)}.{place[3]}"


def _read(file: Path) -> dict[str, Any]:
    """Return the state dict of a file; only tensors and plain types are read, no code."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no such file raises almost anything
        said = " ".join(str(error).split()).partition(". ")[0][:100]
        raise ConfigError(
            f"{KEY}: {file} cannot be read ({type(error).__name__}: {said}); give the authors' NAME.pckl"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{KEY}: {file} holds no state dict, but a {type(content).__name__}")
    return content


def _translated(
    file: Path, content: Mapping[str, Any], names: Mapping[str, str], ours: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a file by our names, in our order."""
    lacking = [name for name in names.values() if name not in content]
    further = [str(name) for name in content if name not in set(names.values())]
    wrong = [
        f"{name} {_form(content[name])} instead of {_form(ours[key])}"
        for key, name in names.items()
        if name in content and _form(content[name]) != _form(ours[key])
    ]
    found = {"lacks": lacking, "has besides": further, "has of another shape": wrong}
    said = [
        f"{what} {ones[0]}{f' and {len(ones) - 1} more' if len(ones) > 1 else ''}"
        for what, ones in found.items()
        if ones
    ]
    if not said:
        infinite = [name for name in names.values() if not content[name].isfinite().all()]
        said = [f"has values that are not finite in {infinite[0]}"] if infinite else []
    if said:
        way_out = "give the authors' NAME.pckl, with NAME_seg.pckl beside it, and widths of 128 and 64"
        raise ConfigError(f"{KEY}: {file} {', '.join(said)}; {way_out}")
    return {key: content[name] for key, name in names.items()}


def _form(value: Any) -> str:
    """Return the shape of a tensor, in words; of something else what it is."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return "x".join(map(str, value.shape)) or "one number"
