"""The training itself: from the start, from where it was broken off, or not at all if it was done before."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.runs.checkpoints import load_weights, read_checkpoint, save_weights
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.training.guard import Guard
from anomaly_lab.training.progress import Progress
from anomaly_lab.training.saving import Saving
from anomaly_lab.training.settings import TrainerSettings

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a training is kept, and what it is known by."""

    directory: RunDirectory
    training_hash: str
    seed: int


def prepared(
    settings: TrainerSettings,
    method: AnomalyMethod,
    place: Place,
    watchers: Sequence[L.Callback],
    dashboards: Sequence[Any],
) -> L.Trainer:
    """Return the trainer, with what keeps a training exact, shows it and saves it, and further callbacks."""
    directory, training_hash, seed = place
    progress = Progress(directory.path)
    saving = Saving(directory, settings.save_minutes, training_hash, progress)
    shown = [progress] if here.first() else []
    callbacks = [Guard(seed), *shown, saving, *watchers]
    settings.compile_networks(method)
    return settings.build(directory.path, method.plan.epochs, callbacks, dashboards)


def fit(trainer: L.Trainer, method: AnomalyMethod, data: AnomalyDataModule, place: Place) -> None:
    """Train, unless the weights are there; the last weights are the weights."""
    directory, training_hash, _ = place
    found = [file.exists() for file in (directory.checkpoint, directory.resume_checkpoint)]
    trained, begun = exchange.told(found)
    if trained:
        load_weights(method, directory.checkpoint, training_hash)
        return
    resume = directory.resume_checkpoint if begun else None
    learns = "trains" if method.automatic_optimization else "fits"
    starts = f"{learns} from the start" if method.plan.steps else "takes the weights as they come"
    log.info(starts if resume is None else f"goes on from {resume}")
    if resume is not None:
        # Loader workers read ahead before Lightning tells the order its epoch.
        epoch, batches = _progress(resume, training_hash)
        data.order.set_epoch(epoch)
        if batches:  # saved within it
            data.order.leave_out(epoch, batches * data.batch_size)
    trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
    exchange.as_the_first(list(method.state_dict().values()))
    if here.first():
        save_weights(method, directory, training_hash)


def _progress(resume: Path, training_hash: str) -> tuple[int, int]:
    """Return how many epochs were done, and how many batches of the one that was not."""
    content = read_checkpoint(resume, training_hash)
    try:
        loops = content["loops"]["fit_loop"]
        epoch = loops["epoch_progress"]["current"]
        batches = loops["epoch_loop.batch_progress"]["current"]["processed"]
        within = epoch["started"] > epoch["processed"]
        return int(epoch["processed"]), int(batches) if within else 0
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{resume}: does not say how far the training was; remove it to train again"
        ) from error
