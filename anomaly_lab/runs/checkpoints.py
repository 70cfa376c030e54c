"""Checkpoints: tensors and plain types only, and only those of the recipe asked for."""

from pathlib import Path
from typing import Any

import torch

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.runs.directory import RunDirectory


def read_checkpoint(file: Path, training_hash: str) -> dict[str, Any]:
    """Return a checkpoint's content.

    Raises:
        RunError: it cannot be read, or belongs to another recipe.
    """
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling garbage raises almost anything
        raise RunError(
            f"{file}: is no readable checkpoint ({type(error).__name__}); remove it to train again"
        ) from error
    if content.get("training_hash") != training_hash:
        hashes = f"training hash {content.get('training_hash')!s:.8}, wanted {training_hash:.8}"
        raise RunError(
            f"{file}: was trained with another recipe or on other data ({hashes}); remove it to train again"
        )
    return content


def load_weights(method: AnomalyMethod, file: Path, training_hash: str) -> None:
    """Give the method the weights of a finished training; raises as `read_checkpoint` does."""
    content = read_checkpoint(file, training_hash)
    method.on_load_checkpoint(content)
    method.load_state_dict(content["state_dict"])


def save_weights(method: AnomalyMethod, directory: RunDirectory, training_hash: str) -> None:
    """Keep the weights of a training that has ended; the state to resume from is needed no more."""
    with directory.replacing(directory.checkpoint.name) as path, path.open("wb") as file:
        torch.save({"state_dict": method.state_dict(), "training_hash": training_hash}, file)
    directory.resume_checkpoint.unlink(missing_ok=True)
