"""TensorBoard: event files in the run directory."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from anomaly_lab.training.loggers.base import Board, Mirror, RunFacts, RunResult, need


@final
class TensorBoard(Mirror):
    """Writes scalars to ``RUN DIRECTORY/tensorboard``; ``tensorboard --logdir runs`` shows all runs.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(self) -> None:
        need("tensorboard", "tensorboard")

    def opened(self, facts: RunFacts, earlier: str) -> "EventFile":
        """Return the board; a part of a run is a file of its own, which TensorBoard joins."""
        return EventFile(facts)


@final
class EventFile(Board):
    """TensorBoard knows no outcome: the curves of a failed run merely end."""

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.logger = TensorBoardLogger(facts.path, name="tensorboard", version="", default_hp_metric=False)
        self.logger.experiment.add_text("config", as_code(facts.config), 0)

    @property
    def known_as(self) -> str:
        """Nothing."""
        return ""

    def scalars(self, values: Mapping[str, float], step: int | None) -> None:
        """Add a point to each curve."""
        self.logger.log_metrics(dict(values), step)

    def result(self, result: RunResult) -> None:
        """Add metrics with the run's settings beside them, a text of both, and every picture."""
        writer = self.logger.experiment
        settings = {**dict(leaves(self.facts.config)), **self.facts.labels}
        self.logger.log_hyperparams(settings, dict(result.metrics), result.step)
        rows = {**self.facts.labels, **self.facts.sizes, "seconds": result.seconds, **result.metrics}
        writer.add_text("summary", as_table(rows), result.step)
        captions = {}
        for picture in result.pictures:
            name = picture.file.stem
            tag = picture.series if picture.series == name else f"{picture.series}/{name}"
            with Image.open(picture.file) as opened:
                writer.add_image(tag, np.asarray(opened.convert("RGB")), result.step, dataformats="HWC")
            captions[tag] = picture.caption
        if captions:
            writer.add_text("captions", as_table(captions), result.step)

    def close(self, *, failed: bool) -> None:
        """Write what waits; Lightning closed the file when the training ended, and it was opened again."""
        self.logger.finalize("failed" if failed else "success")


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a config with values that TensorBoard's table takes: numbers and texts."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value if isinstance(value, bool | int | float | str) else json.dumps(value)


def as_table(rows: Mapping[str, Any]) -> str:
    """Return two columns as Markdown."""
    lines = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def as_code(config: Mapping[str, Any]) -> str:
    """Return a config as Markdown, indented JSON in a code block."""
    text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    return "\n".join(f"    {line}" for line in text.splitlines())
