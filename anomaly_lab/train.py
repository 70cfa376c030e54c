"""One run: what is asked for is checked, built, trained, tested, kept and drawn. The composition root."""

import logging

from omegaconf import OmegaConf

from anomaly_lab.config.building import built
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.evaluation.evaluate import evaluate
from anomaly_lab.evaluation.robustness import poison_metrics
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.parts import WORK, Parts, told
from anomaly_lab.pictures.drawing import draw
from anomaly_lab.ranks.companions import accompanied
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.identity import Identity
from anomaly_lab.runs.lock import locked
from anomaly_lab.runs.provenance import provenance
from anomaly_lab.runs.recording import Finished, early_failures_kept, finished, record, recording
from anomaly_lab.runs.reuse import trained_once
from anomaly_lab.runs.shortage import one_line
from anomaly_lab.training.fitting import Place
from anomaly_lab.training.loggers.mirrors import Mirrors
from anomaly_lab.training.plan import introduced, planned, sizes
from anomaly_lab.training.scoring import trained_and_scored

log = logging.getLogger(__name__)


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
    parts = Parts.of(cfg)
    plan = planned(parts.trainer, parts.data)
    device = parts.trainer.accelerator()  # first, as hashing a data set may take minutes
    identity = Identity.of(checked.hashes, cfg.seed, checked.weights, checked.own_modules, parts.data)
    if not directory.wants_a_run(identity.made_from, retry=asked.retries):
        return finished(directory, before=True)
    method = parts.method(cfg, plan)
    with locked(directory.path):
        if begins := directory.wants_a_run(identity.made_from, retry=asked.retries):  # else another did it
            manifest = asked.described(checked.differs) | identity.described() | provenance(device)
            manifest |= parts.data.described() | {"ranks": parts.trainer.ranks()}
            config = OmegaConf.to_yaml(cfg, resolve=True)
            with recording(directory, config, asked.overrides, manifest, resume=cfg.resume):
                fit_and_test(parts, method, directory, identity, mirrors)
    return finished(directory, before=not begins)


@one_line()
def fit_and_test(
    parts: Parts, method: AnomalyMethod, directory: RunDirectory, identity: Identity, mirrors: Mirrors
) -> None:
    """Train, unless the weights are there, and test, on all ranks; then evaluate, keep and draw."""
    data = parts.data
    notes = (f"pseudo anomalies: {data.synthesis.source}", data.left_out.described, *data.notes)
    log.info("%s starts; %s", directory.path, introduced(method, data.geometry().size, notes))
    if data.reference is not None:
        directory.write_arrays("reference.npz", {"image": data.reference})
    place = Place(directory, identity.training_hash, identity.seed)
    with trained_once(*place[:2]), mirrors.opened(sizes(method)) as loggers:
        with accompanied(*parts.trainer.crew(), WORK, told(directory, identity, mirrors.facts.config)):
            found = trained_and_scored(*parts, method, place, loggers)
        trainer, predictor, scored, cells = found
        numbers = evaluate(scored, parts.evaluation, method.printed)
        numbers.metrics.update(poison_metrics(cells))
        record(directory, scored, numbers, cells)
        pictures = draw(directory, data.test, scored, numbers, predictor, parts.evaluation)
        mirrors.show(numbers.metrics, trainer.global_step, pictures)
