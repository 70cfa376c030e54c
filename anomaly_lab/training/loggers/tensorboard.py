"""TensorBoard: event files in the run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from anomaly_lab.errors import ConfigError
from anomaly_lab.training.loggers.base import Mirror


@final
class TensorBoard(Mirror):
    """Writes scalars to ``RUN DIRECTORY/tensorboard``; ``tensorboard --logdir runs`` shows all runs.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "logger=tensorboard: not there; pip install anomaly_lab[tensorboard] or give logger=csv"
            )

    @contextmanager
    def opened(self, path: Path, config: dict[str, Any]) -> Iterator[list[Logger]]:
        """Give the logger; TensorBoard knows no outcome, so a failed run's curves merely end."""
        logger = TensorBoardLogger(path, name="tensorboard", version="", default_hp_metric=False)
        try:
            yield [logger]
        finally:
            logger.finalize("success")  # the final metrics come after Lightning has closed the file
