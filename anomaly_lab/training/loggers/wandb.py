"""Weights & Biases: one W&B run for one run directory."""

import logging
import netrc
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import urlsplit

import wandb
from lightning.pytorch.loggers import Logger
from wandb.wandb_run import Run

from anomaly_lab.errors import RunError
from anomaly_lab.training.loggers.base import Mirror

log = logging.getLogger(__name__)
STEP = "trainer/global_step"  # Lightning's name for the x axis


@final
@dataclass(frozen=True, kw_only=True)
class Wandb(Mirror):
    """Opens a W&B run, its files under ``RUN DIRECTORY/wandb``, and finishes it with the body's outcome.

    A run taken up again goes on under the W&B id that the first folder there carries in its name. Offline,
    each part is a folder of its own, and one ``wandb sync`` of them all joins the parts (tried with 0.31).

    Attributes:
        project, entity, group, tags: where W&B files the run; ``entity: null`` is the account's own.
        mode: ``auto`` is what W&B's own settings say (WANDB_MODE), but offline where W&B would ask for a key.
    """

    project: str
    entity: str | None
    group: str | None
    tags: Sequence[str]
    mode: Literal["auto", "online", "offline", "disabled"]

    @contextmanager
    def opened(self, path: Path, config: dict[str, Any]) -> Iterator[list[Logger]]:
        """Give the logger; a body that raises ends the W&B run with exit code 1, which W&B shows as failed.

        Raises:
            RunError: W&B did not open. Once open, whatever fails at W&B is a warning: the run directory is
                the record.
        """
        run = self._open(path, config)
        exit_code = 1
        try:
            yield [RunLogger(run)]
            exit_code = 0
        finally:
            _close(run, exit_code)

    def _open(self, path: Path, config: dict[str, Any]) -> Run:
        earlier = next((path / "wandb").glob("*run-*-*"), None)
        try:
            keyless = self.mode == "auto" and _would_ask()
            run = wandb.init(
                project=self.project,
                entity=self.entity,
                group=self.group,
                tags=list(self.tags),
                mode="offline" if keyless else None if self.mode == "auto" else self.mode,
                dir=path,
                name=path.name,
                id=earlier.name.rpartition("-")[2] if earlier else None,
                resume="allow",
                config=config,
                settings=wandb.Settings(
                    silent=True, init_timeout=30, finish_timeout=60, finish_timeout_raises=True
                ),
            )
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP, step_sync=True)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise RunError(
                f"logger=wandb: did not open ({reason}); give logger.mode=offline or logger=csv"
            ) from error
        if run.offline:
            why = " (it knows no key)" if keyless else ""
            log.info("W&B: offline%s; to upload: wandb sync %s/wandb/offline-run-*", why, path)
        elif not run.disabled:
            log.info("W&B: %s", run.url)
        return run


def _would_ask() -> bool:
    """Say whether W&B means to be online and knows no key, from its settings or from ``wandb login``."""
    settings = wandb.setup().settings
    if settings.mode != "online" or settings.api_key or settings.identity_token_file:
        return False
    try:
        keys = netrc.netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, netrc.NetrcParseError):
        return True
    return not any(keys.authenticators(host) for host in (urlsplit(settings.base_url).netloc, "api.wandb.ai"))


def _close(run: Run, exit_code: int) -> None:
    try:
        run.finish(exit_code)
    except Exception as error:
        log.warning(
            "W&B did not finish (%s: %s); the run directory has everything", type(error).__name__, error
        )
        with suppress(Exception):
            wandb.teardown()  # a dead service would fail the next job, too


@final
class RunLogger(Logger):
    """Passes metrics on to a W&B run until that fails.

    Lightning's own logger would take the training with it.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.failed = False

    @property
    def name(self) -> str | None:
        """The project."""
        return self.run.project

    @property
    def version(self) -> str | None:
        """The id of the W&B run."""
        return self.run.id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row to the run's history; the last value of each metric is its summary."""
        if self.failed:
            return
        try:
            self.run.log({**metrics, STEP: step})
        except Exception as error:
            self.failed = True
            log.warning("W&B shows no more of this run (%s: %s); it goes on", type(error).__name__, error)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add nothing: the W&B run was opened with the whole config."""
