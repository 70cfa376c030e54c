"""A frame with one argument of each kind, and a complete config for it, which tests spoil key by key."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import torch
import yaml
from omegaconf import OmegaConf

from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.types import EVALUATION_ONLY, SAME_RUN

ALLOW = ["tests"]  # the top-level module of what follows


class Part(ABC):
    @abstractmethod
    def work(self) -> None: ...


class Bolt(Part):
    def __init__(self, length: float, k: Annotated[int, EVALUATION_ONLY] = 1): ...

    def work(self) -> None: ...


class Stranger:
    def __init__(self, length: float): ...


def make_bolt(length: float) -> Bolt:
    return Bolt(length)


def make_stranger(length: float) -> Stranger:
    return Stranger(length)


class Everything(Part):
    def __init__(
        self,
        integer: int,
        number: float,
        flag: bool,
        text: str,
        colour: Literal["red", "green"],
        level: Literal[1, 2],
        maybe: int | None,
        old_maybe: Optional[float],  # noqa: UP045 - both spellings are read
        sizes: Sequence[int],
        pair: tuple[int, str],
        numbers: tuple[float, ...],
        size: int | Sequence[int],
        table: Mapping[str, float],
        anything: Any,
        part: Part,
        parts: list[Part],
        optimizer: Callable[..., torch.optim.Optimizer],
        default: int = 3,
    ): ...

    def work(self) -> None: ...


class Data:
    def __init__(
        self,
        root: Annotated[str, SAME_RUN],
        category: str,
        workers: Annotated[int, SAME_RUN],
        seed: int,
        part: Part,
        textures: str | None,
    ): ...


class Trainer:
    def __init__(
        self, device: Annotated[str, SAME_RUN], devices: Annotated[int, SAME_RUN], max_epochs: int
    ): ...


class Logger:
    def __init__(self, project: str): ...


@dataclass
class Frame:
    seed: Annotated[int, SAME_RUN]
    tag: Annotated[str, SAME_RUN]
    runs: Annotated[str, SAME_RUN]
    resume: Annotated[bool, SAME_RUN]
    retry: Annotated[Literal["none", "failed"], SAME_RUN]
    evaluation: Annotated[EvaluationSettings, EVALUATION_ONLY]
    part: Part
    model: Part
    data: Data
    trainer: Trainer
    logger: Annotated[Logger, SAME_RUN]


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{target}", **arguments}


COMPLETE = """
seed: 0
tag: run
runs: runs
resume: true
retry: none
evaluation: {_target_: anomaly_lab.evaluation.settings.EvaluationSettings, resolution: network,
  mask_resize: nearest, fpr_limit: 0.3, target_fpr: 0,
  overlays: 1, bootstrap: 2, save_maps: false, poison: false}
part: {_target_: HERE.Bolt, length: 1.5}
model:
  _target_: HERE.Everything
  integer: 1
  number: 1
  flag: true
  text: a
  colour: red
  level: 2
  maybe: null
  old_maybe: 2
  sizes: [3, 4]
  pair: [1, x]
  numbers: [1, 2.5]
  size: 5
  table: {a: 1, b: 2.0}
  anything: {x: [null, y]}
  part: {_target_: HERE.Bolt, length: 2.0, k: 5}
  parts: [{_target_: HERE.Bolt, length: 1}, {_target_: HERE.make_bolt, length: 3}]
  optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.1, betas: [0.5, 0.9]}
data: {_target_: HERE.Data, root: d, category: c, workers: 0, seed: "${seed}", part: "${part}",
  textures: null}
trainer: {_target_: HERE.Trainer, device: cpu, devices: 1, max_epochs: 2}
logger: {_target_: HERE.Logger, project: p}
"""


def complete() -> dict[str, Any]:
    return yaml.safe_load(COMPLETE.replace("HERE", __name__))


def changed(path: str, value: Any) -> Any:
    cfg = OmegaConf.create(complete())
    OmegaConf.update(cfg, path, value, merge=False)
    return cfg


def removed(path: str) -> Any:
    cfg = OmegaConf.create(complete())
    parent, _, key = path.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[key]
    return cfg
