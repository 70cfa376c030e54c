"""Weights & Biases: one W&B run for one run directory."""

import logging
import netrc
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import urlsplit

import wandb
from wandb.wandb_run import Run

from anomaly_lab.errors import RunError
from anomaly_lab.training.loggers.base import Board, Mirror, RunFacts, RunResult

log = logging.getLogger(__name__)
STEP = "trainer/global_step"  # Lightning's name for the x axis


@final
@dataclass(frozen=True, kw_only=True)
class Wandb(Mirror):
    """Opens a W&B run, its files under ``RUN DIRECTORY/wandb``, and finishes it with the run's outcome.

    A run taken up again goes on under the same W&B id. Offline, each part is a folder of its own, and one
    ``wandb sync`` of them all joins the parts (tried with 0.31).

    Attributes:
        project, entity, tags: where W&B files the run; ``entity: null`` is the account's own.
        group: ``auto`` is the experiment's name, or the sweep's, and none for a run alone.
        mode: ``auto`` is what W&B's own settings say (WANDB_MODE), but offline where W&B would ask for a key.
    """

    project: str
    entity: str | None
    group: str | None
    tags: Sequence[str]
    mode: Literal["auto", "online", "offline", "disabled"]

    def opened(self, facts: RunFacts, earlier: str) -> "WandbBoard":
        """Return the board. RunError: W&B did not open."""
        keyless = self.mode == "auto" and _would_ask()
        settings: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "group": facts.group if self.group == "auto" else self.group,
            "job_type": facts.choices["model"],
            "tags": list(self.tags),
            "mode": "offline" if keyless else None if self.mode == "auto" else self.mode,
            "id": earlier or _named_by_a_folder(facts.path),
        }
        try:
            run = wandb.init(
                **settings,
                dir=facts.path,
                name=facts.path.name,
                resume="allow",
                config={**facts.config, "choices": dict(facts.choices)},
                settings=wandb.Settings(
                    silent=True, init_timeout=30, finish_timeout=60, finish_timeout_raises=True
                ),
            )
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP, step_sync=True)
            run.summary.update(facts.sizes)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            way_out = "give logger.wandb.mode=offline or logger=csv"
            raise RunError(f"logger=wandb: did not open ({reason}); {way_out}") from error
        if run.offline:
            why = " (it knows no key)" if keyless else ""
            log.info("W&B: offline%s; to upload: wandb sync %s/wandb/offline-run-*", why, facts.path)
        elif not run.disabled:
            log.info("W&B: %s", run.url)
        return WandbBoard(run, facts)


@final
class WandbBoard(Board):
    """A W&B run."""

    def __init__(self, run: Run, facts: RunFacts) -> None:
        self.run = run
        self.facts = facts

    @property
    def known_as(self) -> str:
        """The id of the W&B run; nothing if W&B is disabled."""
        return "" if self.run.disabled else str(self.run.id)

    def scalars(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a row to the run's history; the last value of each metric is its summary."""
        self.run.log({**values, STEP: step})

    def result(self, result: RunResult) -> None:
        """Add metrics, seconds, the pictures, and the row that a group's table is made of."""
        pictures = defaultdict(list)
        for picture in result.pictures:
            pictures[picture.series].append(wandb.Image(str(picture.file), caption=picture.caption))
        row = {**self.facts.labels, **result.metrics}
        shown: dict[str, Any] = {"per_category": wandb.Table(columns=list(row), data=[list(row.values())])}
        self.run.log({**result.metrics, **shown, **pictures, "seconds": result.seconds, STEP: result.step})

    def close(self, *, failed: bool) -> None:
        """Finish the W&B run; exit code 1 is what W&B shows as failed."""
        try:
            self.run.finish(int(failed))
        except Exception:
            with suppress(Exception):
                wandb.teardown()  # a dead service would fail the next job, too
            raise


def _named_by_a_folder(path: Path) -> str | None:
    """Return the id of an earlier part whose process did not get to note it."""
    earlier = next((path / "wandb").glob("*run-*-*"), None)
    return earlier.name.rpartition("-")[2] if earlier else None


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
