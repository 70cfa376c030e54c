"""The composition root: data, method, trainer; fit, test, results."""

import hashlib
import json
import logging
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from anomaly_lab import config
from anomaly_lab.callbacks.evaluation import Evaluation
from anomaly_lab.callbacks.training import Guard, Progress, Saving
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.provenance import provenance
from anomaly_lab.results import RunDirectory
from anomaly_lab.trainer import TrainerSettings

log = logging.getLogger(__name__)
PLAIN = {"_convert_": "all"}  # lists and dicts, not OmegaConf's, for whoever is built


def run(cfg: DictConfig) -> dict[str, float]:
    """Train and test as the config says, unless that was done; return the metrics.

    What a user can get wrong fails before the run directory exists.
    """
    config.validate(cfg)
    settings: TrainerSettings = instantiate(cfg.trainer, **PLAIN)
    device, _ = settings.accelerator(), settings.steps(1)
    instantiate(cfg.logger, **PLAIN)
    data: AnomalyDataModule = instantiate(cfg.data, **PLAIN)
    if "/" in cfg.tag or not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"tag={cfg.tag}, seed={cfg.seed}: a tag has no slash, a seed lies in 0 .. 2^32 - 1")
    L.seed_everything(cfg.seed, verbose=False)
    directory, identity = identified(cfg, data)
    made_from = {name: identity[name] for name in ("data_fingerprint", "synthesis_source", "weights")}
    if directory.wants_a_run(made_from):
        method: AnomalyMethod = instantiate(cfg.model, **PLAIN)
        method.check_size(*data.geometry().size)
        if data.synthesis.source != "none" and not method.pseudo:
            raise ConfigError("synthesis: this method learns from normal images alone; give synthesis=none")
        callbacks = watchers(cfg, data, directory, identity["training_hash"])
        data.setup("fit")
        with directory.lock() as held:
            if not held:
                log.warning("%s: another process works on it; skipped", directory.path)
                return {}
            if directory.wants_a_run(made_from):  # it may have ended since the first look
                with recording(directory, cfg, {**identity, **data.described(), **provenance(device)}) as manifest:
                    fit_and_test(cfg, data, method, directory, manifest, callbacks)
    else:
        log.info("finished before, skipped:")
    metrics = directory.metrics()
    numbers = "".join(f"\n  {name:26s} {value:.4f}" for name, value in metrics.items())
    log.info("%s: %s%s", directory.path, directory.manifest()["status"], numbers)
    return metrics


def identified(cfg: DictConfig, data: AnomalyDataModule) -> tuple[RunDirectory, dict[str, Any]]:
    """Return where the run belongs and what makes it this one.

    Raises:
        RunError: it failed before, and a sweep was not asked to try again.
    """
    hydra = HydraConfig.get()
    config_hash, recipe_hash = config.hashes(cfg)
    weights = [value for path, value, _ in config.validate(cfg) if path.endswith(".weights")]
    if weights:
        from anomaly_lab.pretrained import weights_identity  # noqa: PLC0415 - most methods start at random

        weights = [weights_identity(word) for word in weights]
    made_from = {"data_fingerprint": data.fingerprint(), "synthesis_source": data.synthesis.source, "weights": weights}
    # What the weights depend on: they are neither gone on with nor shared if any of it differs.
    training_hash = hashlib.sha256(json.dumps([recipe_hash, cfg.seed, made_from]).encode()).hexdigest()
    path = Path(cfg.runs, hydra.runtime.choices["model"], hydra.runtime.choices["data"], cfg.data.category)
    directory = RunDirectory(path / f"{cfg.tag}-{config_hash[:8]}-seed{cfg.seed}")
    found = directory.manifest()
    if hydra.mode == RunMode.MULTIRUN and cfg.retry == "none" and found.get("status") == "failed":
        raise RunError(f"{directory.path}: failed before ({found.get('error')}); skipped, give retry=failed")
    return directory, {"config_hash": config_hash, "training_hash": training_hash, "seed": cfg.seed, **made_from}


def watchers(cfg: DictConfig, data: AnomalyDataModule, directory: RunDirectory, training_hash: str) -> list[L.Callback]:
    """Return the callbacks of a run; pictures come after numbers."""
    how: Any = OmegaConf.to_container(cfg.evaluation)
    pictures, save_maps, poison = how.pop("overlays"), how.pop("save_maps"), how.pop("poison")
    saving = Saving(directory, cfg.trainer.save_minutes, training_hash)
    found = [Guard(cfg.seed), Progress(directory.path), saving, Evaluation(directory, data, **how)]
    if poison:
        from anomaly_lab.callbacks.poison import Poison  # noqa: PLC0415 - few runs ask for it

        found.append(Poison(directory, data))
    if pictures or save_maps:
        from anomaly_lab.callbacks.overlays import drawing  # noqa: PLC0415 - the numbers do without

        found += drawing(directory, data, pictures, save_maps)
    return found


@lru_cache(maxsize=1)
def as_composed(model: str, data: str) -> DictConfig:
    """Return the config of a recipe with nothing else given; a sweep mostly asks for the same again."""
    return compose("config", [f"model={model}", f"data={data}"])


@contextmanager
def recording(directory: RunDirectory, cfg: DictConfig, identity: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep the manifest's status true while the body runs: running, then done or failed."""
    hydra = HydraConfig.get()
    choices = {group: hydra.runtime.choices[group] for group in config.GROUPS}
    recipe = as_composed(choices["model"], choices["data"])
    manifest = {"status": "running", "choices": choices, "tag": cfg.tag, **identity}
    manifest["differs"] = config.differing(cfg, recipe)
    if directory.checkpoint.exists() and (origin := directory.manifest().get("trained_in")):
        manifest["trained_in"] = origin
    directory.write("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    directory.write("overrides.txt", "\n".join(hydra.overrides.task) + "\n")
    directory.write_json("manifest.json", manifest)
    journal = logging.FileHandler(directory.path / "run.log")
    journal.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("anomaly_lab").addHandler(journal)
    log.info("%s starts; pseudo anomalies: %s", directory.path, identity["synthesis_source"])
    began = time.monotonic()
    try:
        yield manifest
    except Exception as error:
        journal.emit(logging.makeLogRecord({"msg": traceback.format_exc()}))  # for this file alone
        failed = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        directory.write_json("manifest.json", manifest | failed)
        raise
    finally:
        logging.getLogger("anomaly_lab").removeHandler(journal)
        journal.close()
    manifest |= {"status": "done", "seconds": round(time.monotonic() - began, 1)}
    directory.write_json("manifest.json", manifest)


def fit_and_test(
    cfg: DictConfig,
    data: AnomalyDataModule,
    method: AnomalyMethod,
    directory: RunDirectory,
    manifest: dict[str, Any],
    callbacks: list[L.Callback],
) -> None:
    """Train, or take the weights of a finished training that does not differ; then test."""
    if data.reference is not None:
        directory.write_arrays("reference.npz", {"image": data.reference})
    if not cfg.resume:
        directory.forget_training()
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    with instantiate(cfg.logger, **PLAIN).opened(directory.path, content) as loggers:
        settings: TrainerSettings = instantiate(cfg.trainer, **PLAIN)
        batches = len(data.train_dataloader())
        method.steps = settings.steps(batches)
        if settings.compile:
            from anomaly_lab.compilation import compile_networks  # noqa: PLC0415 - few runs compile

            compile_networks(method, settings.accelerator())
        trainer = settings.build(directory.path, math.ceil(method.steps / batches), callbacks, loggers)
        siblings, training_hash = list(directory.path.parent.glob("*/manifest.json")), manifest["training_hash"]
        if len(siblings) > 1 and not directory.checkpoint.exists():
            from anomaly_lab.sharing import take_weights  # noqa: PLC0415 - the first run has none to take

            take_weights(directory, manifest, siblings)
        if directory.checkpoint.exists():
            from anomaly_lab.checkpoints import load_weights  # noqa: PLC0415 - as above

            load_weights(method, directory.checkpoint, training_hash)
        else:
            train(trainer, method, data, directory, training_hash)
        trainer.test(method, datamodule=data, verbose=False)
        for logger in loggers:
            logger.log_metrics(directory.metrics(), step=trainer.global_step)


def train(
    trainer: L.Trainer, method: AnomalyMethod, data: AnomalyDataModule, directory: RunDirectory, training_hash: str
) -> None:
    """Fit from the start or from the last saved state; the last weights are the weights."""
    resume = directory.resume_checkpoint if directory.resume_checkpoint.exists() else None
    log.info("trains from the start" if resume is None else f"goes on from {resume}")
    if resume is not None:
        from anomaly_lab.checkpoints import read_checkpoint  # noqa: PLC0415 - the first training has none

        read_checkpoint(resume, training_hash)
    trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
    with directory.replacing(directory.checkpoint.name) as path, path.open("wb") as file:
        torch.save({"state_dict": method.state_dict(), "training_hash": training_hash}, file)
    directory.resume_checkpoint.unlink(missing_ok=True)
