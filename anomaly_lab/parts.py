"""What a run is built from; and what a further rank of it does, which builds the same."""

from pathlib import Path
from typing import Any, NamedTuple, Self

import lightning as L
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.config.building import built
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks.seats import Seat, seated
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.identity import Identity
from anomaly_lab.runs.shortage import one_line
from anomaly_lab.training.fitting import Place
from anomaly_lab.training.plan import check_together, planned
from anomaly_lab.training.scoring import trained_and_scored
from anomaly_lab.training.settings import TrainerSettings
from anomaly_lab.types import Training

WORK = f"{__name__}:accompany"


class Parts(NamedTuple):
    """All but the method; each field is built from the config key of its name."""

    trainer: TrainerSettings  # not yet a trainer
    evaluation: EvaluationSettings
    data: AnomalyDataModule

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Return those that a config names."""
        return cls(*(built(cfg[part]) for part in cls._fields))

    def method(self, cfg: DictConfig, plan: Training) -> AnomalyMethod:
        """Return the method with its first weights, once nothing that a user can get wrong is left."""
        L.seed_everything(cfg.seed, verbose=False)  # for the weights, drawn in the next line
        method: AnomalyMethod = built(cfg.model)
        check_together(method, self.data, self.evaluation)
        method.tell(plan)
        self.data.setup("fit")  # decodes every image, so that a damaged file fails before anything is written
        return method


def told(directory: RunDirectory, identity: Identity, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a further rank is told of a run, as plain types."""
    hashes = {"training_hash": identity.training_hash, "fingerprint": identity.data_fingerprint}
    return {"config": config, "path": str(directory.path), **hashes}


@one_line()
def accompany(seat: Seat, store: Any) -> None:
    """Do the share of a further rank in a run that the first one has checked, holds and keeps."""
    cfg = OmegaConf.create(seat.job["config"])
    parts = Parts.of(cfg)
    parts.data.fingerprint = seat.job["fingerprint"]  # so that no file is hashed twice
    method = parts.method(cfg, planned(parts.trainer, parts.data))
    place = Place(RunDirectory(Path(seat.job["path"])), seat.job["training_hash"], cfg.seed)
    with seated(seat, store):
        trained_and_scored(*parts, method, place, ())
