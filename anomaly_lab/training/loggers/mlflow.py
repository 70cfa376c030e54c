"""MLflow, by Lightning's own logger: one MLflow run for one run directory."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from lightning.pytorch.loggers import MLFlowLogger

from anomaly_lab.errors import RunError
from anomaly_lab.training.loggers.base import Board, Mirror, RunFacts, RunResult, need

log = logging.getLogger(__name__)
TRACKING_URI = "MLFLOW_TRACKING_URI"
LIBRARIES = ("mlflow", "sqlalchemy", "alembic")  # the last two are for a store on the disk
CHATTY = (
    "mlflow.store.db.utils",
    "alembic",
    "lightning.pytorch.loggers.mlflow",
)  # a line for each table made


@final
@dataclass(frozen=True, kw_only=True)
class MLflow(Mirror):
    """Opens an MLflow run, in a database below the folder of all runs unless a server is named.

    A run taken up again goes on under the same MLflow id.

    Attributes:
        experiment: MLflow's name for a table of runs.
        uri: of a tracking server or store; null is MLFLOW_TRACKING_URI, else a store in ``folder``.
        folder: holds mlflow.db and the pictures where no uri is given.

    Raises:
        ConfigError: a library is not installed.
    """

    experiment: str
    uri: str | None
    folder: str

    def __post_init__(self) -> None:
        need("mlflow", *LIBRARIES)

    def opened(self, facts: RunFacts, earlier: str) -> "MLflowBoard":
        """Return the board. RunError: MLflow did not open."""
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            store = self._store()
            with _kept(TRACKING_URI):
                board = self._resumed(store, earlier) or self._anew(facts, store)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise RunError(f"logger=mlflow: did not open ({reason}); give logger=csv") from error
        log.info("MLflow: run %s; to look at it: mlflow ui --backend-store-uri %s", board.known_as, store[0])
        return board

    def _store(self) -> tuple[str, str | None]:
        """Return the uri of the store and of its artifacts, None where the store has a place for them."""
        uri = self.uri or os.environ.get(TRACKING_URI)
        if uri:
            return uri, None
        folder = Path(self.folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()

    def _resumed(self, store: tuple[str, str | None], earlier: str) -> "MLflowBoard | None":
        """Return the board of an earlier part, None if there was none or the store has lost it."""
        with suppress(Exception):  # the store is asked for another, and says what is wrong with it
            if earlier:
                logger = MLFlowLogger(self.experiment, tracking_uri=store[0], run_id=earlier)
                logger.experiment.update_run(earlier, status="RUNNING")
                return MLflowBoard(logger)
        return None

    def _anew(self, facts: RunFacts, store: tuple[str, str | None]) -> "MLflowBoard":
        tags = {"group": facts.group or "", **{name: str(value) for name, value in facts.labels.items()}}
        tags |= {f"tag.{word}": "" for word in facts.config["tags"]}
        tags |= {name: str(size) for name, size in facts.sizes.items()}
        logger = MLFlowLogger(
            self.experiment,
            run_name=facts.path.name,
            tracking_uri=store[0],
            tags=tags,
            artifact_location=store[1],
        )
        logger.log_hyperparams(facts.config)
        return MLflowBoard(logger)


@final
class MLflowBoard(Board):
    """An MLflow run."""

    def __init__(self, logger: MLFlowLogger) -> None:
        self.logger = logger

    @property
    def known_as(self) -> str:
        """The id of the MLflow run."""
        return str(self.logger.run_id)

    def scalars(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""
        self.logger.log_metrics(values, step)

    def result(self, result: RunResult) -> None:
        """Add metrics and seconds, and the pictures as artifacts."""
        self.logger.log_metrics({**result.metrics, "seconds": result.seconds}, result.step)
        for picture in result.pictures:
            folder = picture.file.parent.name
            self.logger.experiment.log_artifact(self.known_as, str(picture.file), folder)

    def close(self, *, failed: bool) -> None:
        """Set the status, FINISHED or FAILED."""
        self.logger.finalize("failed" if failed else "success")


@contextmanager
def _kept(variable: str) -> Iterator[None]:
    """Leave a variable of the environment as it was; MLflow sets its own, which the next run would take."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before
