"""The composition root: data, method, trainer; fit, test, results."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from anomaly_lab import config
from anomaly_lab.callbacks.evaluation import Evaluation
from anomaly_lab.callbacks.overlays import Overlays
from anomaly_lab.callbacks.training import Guard, Progress, Saving
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.provenance import provenance
from anomaly_lab.results import RunDirectory, finished_training

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, float]:
    """Train and test as the config says, unless that was done; return the metrics.

    Everything that a user can get wrong fails before the run directory exists.
    """
    config.validate(cfg)
    L.seed_everything(cfg.seed, verbose=False)
    data: AnomalyDataModule = instantiate(cfg.data)
    made_from = {"data_fingerprint": data.fingerprint()}
    hydra = HydraConfig.get()
    sweep = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    config_hash, training_hash = config.hashes(cfg)
    path = Path(cfg.runs, hydra.runtime.choices["model"], hydra.runtime.choices["data"], cfg.data.category)
    directory = RunDirectory(path / f"{cfg.tag}-{config_hash[:8]}-seed{cfg.seed}")
    if directory.next_step(cfg.resume, cfg.retry, sweep, made_from) == "skip":
        log.info("%s: %s, skipped", directory.path, directory.manifest()["status"])
        return directory.metrics()
    data.setup("fit")
    method: AnomalyMethod = instantiate(cfg.model)
    with directory.lock() as held:
        if not held:
            log.info("%s: another process works on it, skipped", directory.path)
            return {}
        identity = {"config_hash": config_hash, "training_hash": training_hash, "seed": cfg.seed, **made_from}
        with recording(directory, cfg, identity) as manifest:
            return fit_and_test(cfg, data, method, directory, manifest)


@contextmanager
def recording(directory: RunDirectory, cfg: DictConfig, identity: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep the manifest's status true while the body runs: running, then done or failed."""
    choices = {group: HydraConfig.get().runtime.choices[group] for group in config.GROUPS}
    manifest = {"status": "running", "choices": choices, "tag": cfg.tag, **identity, **provenance()}
    directory.write("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    directory.write("overrides.txt", "\n".join(HydraConfig.get().overrides.task) + "\n")
    directory.write_json("manifest.json", manifest)
    began = time.monotonic()
    try:
        yield manifest
    except Exception as error:
        directory.write_json("manifest.json", {**manifest, "status": "failed", "error": f"{type(error).__name__}: {error}"})
        raise
    manifest |= {"status": "done", "seconds": round(time.monotonic() - began, 1)}
    directory.write_json("manifest.json", manifest)


def fit_and_test(
    cfg: DictConfig, data: AnomalyDataModule, method: AnomalyMethod, directory: RunDirectory, manifest: dict[str, Any]
) -> dict[str, float]:
    """Train, or take the weights of a finished training that does not differ; then test."""
    evaluation = Evaluation(directory, data, **{k: cfg.evaluation[k] for k in ("resolution", "fpr_limit", "target_fpr", "bootstrap")})
    callbacks = [
        Guard(cfg.seed),
        Progress(directory.path / "training.csv"),
        Saving(directory, cfg.trainer.save_minutes, manifest["training_hash"]),
        evaluation,
        Overlays(directory, data, cfg.evaluation.overlays, cfg.evaluation.save_maps),
    ]
    with instantiate(cfg.logger).opened(directory.path, OmegaConf.to_container(cfg, resolve=True)) as loggers:
        trainer = instantiate(cfg.trainer).build(callbacks, loggers)
        done = finished_training(directory.path.parent, {k: manifest[k] for k in ("training_hash", "seed", "data_fingerprint")})
        if directory.checkpoint.exists():
            load_weights(method, directory, manifest["training_hash"])
        elif done is not None:
            load_weights(method, done, manifest["training_hash"])
            manifest["trained_in"] = done.path.name
        else:
            train(trainer, method, data, directory, manifest["training_hash"])
        trainer.test(method, datamodule=data, verbose=False)
        for logger in loggers:
            logger.log_metrics(evaluation.metrics, step=trainer.global_step)
    return evaluation.metrics


def train(trainer: L.Trainer, method: AnomalyMethod, data: AnomalyDataModule, directory: RunDirectory, training_hash: str) -> None:
    """Fit from the start or from the last saved state; the last weights are the weights."""
    resume = directory.resume_checkpoint if directory.resume_checkpoint.exists() else None
    if resume is not None:
        read_checkpoint(resume, training_hash)
        log.info("continues from %s", resume)
    trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
    with directory.replacing(directory.checkpoint.name) as file:
        trainer.save_checkpoint(file, weights_only=True)
    directory.resume_checkpoint.unlink(missing_ok=True)


def read_checkpoint(file: Path, training_hash: str) -> dict[str, Any]:
    """Return a checkpoint's content: tensors and plain types only.

    Raises:
        RunError: it cannot be read, or belongs to another recipe.
    """
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"{file}: is no readable checkpoint ({type(error).__name__}); remove it to train again") from error
    if content.get("training_hash") != training_hash:
        theirs = f"{content.get('training_hash')!s:.8}, wanted {training_hash:.8}"
        raise RunError(f"{file}: was trained with another recipe (training hash {theirs}); remove it to train again")
    return content


def load_weights(method: AnomalyMethod, directory: RunDirectory, training_hash: str) -> None:
    """Give the method the weights of a finished training."""
    content = read_checkpoint(directory.checkpoint, training_hash)
    method.on_load_checkpoint(content)
    method.load_state_dict(content["state_dict"])
    log.info("takes the weights of %s", directory.checkpoint)
