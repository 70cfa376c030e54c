"""One run: what is asked for is checked, built, trained, tested, kept and drawn. The composition root."""

import logging
from typing import Any, NamedTuple

import lightning as L
from omegaconf import OmegaConf

from anomaly_lab.config.building import built
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.collect import Collector
from anomaly_lab.evaluation.evaluate import evaluate
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.robustness import poison_metrics, robustness
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.pictures.drawing import draw
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.identity import Identity
from anomaly_lab.runs.lock import locked
from anomaly_lab.runs.provenance import provenance
from anomaly_lab.runs.recording import Finished, early_failures_kept, finished, record, recording
from anomaly_lab.runs.reuse import trained_once
from anomaly_lab.runs.shortage import one_line
from anomaly_lab.training.fitting import Place, fit, prepared
from anomaly_lab.training.loggers.mirrors import Mirrors
from anomaly_lab.training.plan import check_together, introduced, planned, sizes
from anomaly_lab.training.settings import TrainerSettings

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a run is built from, besides its method; each field is built from the config key of its name."""

    trainer: TrainerSettings  # not yet a trainer: `prepared` makes that
    evaluation: EvaluationSettings
    data: AnomalyDataModule


@one_line()
def run(asked: Composition) -> Finished:
    """Train and test as asked, unless that was done; what a user can get wrong fails before it begins."""
    cfg = asked.cfg
    checked = Checked.of(cfg, cfg.get("allow") or (), asked.recipe, asked.typed)
    directory = RunDirectory.of(asked.folder, cfg.tag, checked.config_hash, cfg.seed)
    with early_failures_kept(directory, asked.described(checked.differs), keep=asked.sweeping):
        mirrors = Mirrors(built(cfg.logger), directory, checked.config, asked.choices, asked.group)
        with mirrors.failing_early():
            return once(asked, checked, directory, mirrors)


def once(asked: Composition, checked: Checked, directory: RunDirectory, mirrors: Mirrors) -> Finished:
    """Do the run of a directory, unless it was done."""
    cfg = asked.cfg
    parts = Parts(*(built(cfg[part]) for part in Parts._fields))
    plan = planned(parts.trainer, parts.data)
    device = parts.trainer.accelerator()  # first, as hashing a data set may take minutes
    identity = Identity.of(checked.hashes, cfg.seed, checked.weights, checked.own_modules, parts.data)
    if not directory.wants_a_run(identity.made_from, retry=asked.retries):
        return finished(directory, before=True)
    L.seed_everything(cfg.seed, verbose=False)  # for the first weights of the method
    method = built(cfg.model)
    check_together(method, parts.data, parts.evaluation)
    method.tell(plan)
    parts.data.setup("fit")  # decodes every image, so that a damaged file fails before anything is written
    with locked(directory.path):
        if begins := directory.wants_a_run(identity.made_from, retry=asked.retries):  # else another did it
            manifest = asked.described(checked.differs) | identity.described() | provenance(device)
            manifest |= parts.data.described()
            config = OmegaConf.to_yaml(cfg, resolve=True)
            with recording(directory, config, asked.overrides, manifest, resume=cfg.resume):
                fit_and_test(parts, method, directory, identity, mirrors)
    return finished(directory, before=not begins)


@one_line()
def fit_and_test(
    parts: Parts, method: Any, directory: RunDirectory, identity: Identity, mirrors: Mirrors
) -> None:
    """Train, unless the weights are there; then test, evaluate, keep and draw."""
    data = parts.data
    notes = (f"pseudo anomalies: {data.synthesis.source}", data.left_out.described, *data.notes)
    log.info("%s starts; %s", directory.path, introduced(method, data.geometry().size, notes))
    if data.reference is not None:
        directory.write_arrays("reference.npz", {"image": data.reference})
    place = Place(directory, identity.training_hash, identity.seed)
    with trained_once(*place[:2]), mirrors.opened(sizes(method)) as loggers:
        collector = Collector(data, parts.evaluation)
        trainer = prepared(parts.trainer, method, place, [collector], loggers)
        fit(trainer, method, data, place)
        predictor = Predictor.of(trainer, method)
        scored = collector.collect(trainer, method, predictor)
        numbers = evaluate(scored, parts.evaluation, method.printed)
        cells = robustness(predictor, data.test, data.batch_size) if parts.evaluation.poison else []
        numbers.metrics.update(poison_metrics(cells))
        record(directory, scored, numbers, cells)
        pictures = draw(directory, data.test, scored, numbers, predictor, parts.evaluation)
        mirrors.show(numbers.metrics, trainer.global_step, pictures)
