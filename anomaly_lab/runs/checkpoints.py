"""Checkpoints: tensors and plain types only, and only those of the recipe asked for."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import one_line

AGAIN = "remove it to train again"


def read_checkpoint(file: Path, training_hash: str) -> dict[str, Any]:
    """Return a checkpoint's content; its ``state_dict`` holds finite tensors by name.

    Raises:
        RunError: it cannot be read, belongs to another recipe, or holds something else.
    """
    if not file.is_file():  # a pipe would be waited for
        raise RunError(f"{file}: is no file; {AGAIN}")
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        problem = _problem(content, training_hash)
    except Exception as error:  # unpickling garbage raises almost anything
        raise RunError(f"{file}: is no readable checkpoint ({type(error).__name__}); {AGAIN}") from error
    if problem:
        raise RunError(f"{file}: {problem}; {AGAIN}")
    return content


def _problem(content: Any, training_hash: str) -> str:
    """Say what is wrong with a checkpoint's content, or nothing."""
    if not isinstance(content, dict):
        return f"is no checkpoint, but a {type(content).__name__}"
    if content.get("training_hash") != training_hash:
        found, wanted = (one_line(value)[:8] for value in (content.get("training_hash"), training_hash))
        hashes = f"training hash {found}, wanted {wanted}"
        return f"was trained with another recipe or on other data ({hashes})"
    state = content.get("state_dict")
    if not isinstance(state, dict):
        return "has no state_dict"
    if wrong := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        return f"{one_line(wrong[0])} is no tensor"
    if wrong := [name for name, value in state.items() if not value.isfinite().all()]:
        return f"{one_line(wrong[0])} has values that are not finite"
    return ""


def load_weights(method: AnomalyMethod, file: Path, training_hash: str) -> None:
    """Give the method the weights of a finished training.

    Raises:
        RunError: as `read_checkpoint`, or they do not fit the method.
    """
    content = read_checkpoint(file, training_hash)
    try:
        method.on_load_checkpoint(content)
        method.load_state_dict(content["state_dict"])
    except Exception as error:  # names and shapes that do not fit raise each their own
        lines = str(error).strip().splitlines()
        said = next((line for line in lines if "mismatch" in line or "_dict" not in line), lines[0])
        raise RunError(f"{file}: does not fit the method ({one_line(said)}); {AGAIN}") from error


def save_weights(method: AnomalyMethod, directory: RunDirectory, training_hash: str) -> None:
    """Keep the weights of a training that has ended; the state to resume from is needed no more."""
    with directory.replacing(directory.checkpoint.name) as path, path.open("wb") as file:
        torch.save({"state_dict": method.state_dict(), "training_hash": training_hash}, file)
    directory.resume_checkpoint.unlink(missing_ok=True)
