"""The composition root: data, method, trainer; fit, test, results."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from anomaly_lab import config
from anomaly_lab.callbacks.evaluation import Evaluation
from anomaly_lab.callbacks.overlays import Overlays
from anomaly_lab.callbacks.training import Guard, Progress, Saving
from anomaly_lab.checkpoints import load_weights, read_checkpoint
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.provenance import provenance
from anomaly_lab.results import RunDirectory, finished_training

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, float]:
    """Train and test as the config says, unless that was done; return the metrics.

    Everything that a user can get wrong fails before the run directory exists.
    """
    config.validate(cfg)
    instantiate(cfg.trainer, _convert_="all").accelerator()
    L.seed_everything(cfg.seed, verbose=False)
    data: AnomalyDataModule = instantiate(cfg.data, _convert_="all")
    hydra = HydraConfig.get()
    config_hash, training_hash = config.hashes(cfg)
    made_from = {"data_fingerprint": data.fingerprint()}
    path = Path(cfg.runs, hydra.runtime.choices["model"], hydra.runtime.choices["data"], cfg.data.category)
    directory = RunDirectory(path / f"{cfg.tag}-{config_hash[:8]}-seed{cfg.seed}")
    ask = partial(
        directory.next_step, resume=cfg.resume, retry=cfg.retry, sweep=hydra.mode == RunMode.MULTIRUN, made_from=made_from
    )
    if ask() == "run":
        data.setup("fit")
        method: AnomalyMethod = instantiate(cfg.model, _convert_="all")
        with directory.lock() as held:
            if not held:
                log.warning("%s: another process works on it; skipped", directory.path)
                return {}
            if ask() == "run":  # it may have ended while the images were read
                identity = {"config_hash": config_hash, "training_hash": training_hash, "seed": cfg.seed, **made_from}
                with recording(directory, cfg, data, identity) as manifest:
                    fit_and_test(cfg, data, method, directory, manifest)
    log.info("%s: %s", directory.path, directory.manifest()["status"])
    return directory.metrics()


@contextmanager
def recording(
    directory: RunDirectory, cfg: DictConfig, data: AnomalyDataModule, identity: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Keep the manifest's status true while the body runs: running, then done or failed."""
    hydra = HydraConfig.get()
    choices = {group: hydra.runtime.choices[group] for group in config.GROUPS}
    recipe = compose("config", [f"model={choices['model']}", f"data={choices['data']}"])
    manifest = {"status": "running", "choices": choices, "tag": cfg.tag, **identity, **data.described(), **provenance()}
    manifest["differs"] = config.differing(cfg, recipe)
    directory.write("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    directory.write("overrides.txt", "\n".join(hydra.overrides.task) + "\n")
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
) -> None:
    """Train, or take the weights of a finished training that does not differ; then test."""
    watch = (Guard(cfg.seed), Progress(directory.path), Saving(directory, cfg.trainer.save_minutes, manifest["training_hash"]))
    settings = cfg.evaluation
    evaluation = Evaluation(
        directory, data, settings.resolution, settings.fpr_limit, settings.target_fpr, settings.bootstrap
    )
    overlays = Overlays(directory, data, settings.overlays, settings.save_maps)
    with instantiate(cfg.logger, _convert_="all").opened(directory.path, OmegaConf.to_container(cfg, resolve=True)) as loggers:
        trainer = instantiate(cfg.trainer, _convert_="all").build([*watch, evaluation, overlays], loggers)
        equal = {name: manifest[name] for name in ("training_hash", "seed", "data_fingerprint")}
        if not directory.checkpoint.exists() and (trained := finished_training(directory.path.parent, equal)):
            directory.take_weights(trained)
            manifest["trained_in"] = trained.path.name
        if directory.checkpoint.exists():
            load_weights(method, directory.checkpoint, manifest["training_hash"])
        else:
            train(trainer, method, data, directory, manifest["training_hash"])
        trainer.test(method, datamodule=data, verbose=False)
        for logger in loggers:
            logger.log_metrics(evaluation.metrics, step=trainer.global_step)


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
