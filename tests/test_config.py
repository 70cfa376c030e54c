"""The checker against a class with one argument of each kind, and the hashes against texts written by hand."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from anomaly_lab import config
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import EVALUATION_ONLY

FRAME = config.Frame


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
    def __init__(self, root: str, category: str, workers: int, seed: int, part: Part, textures: str | None): ...


class Trainer:
    def __init__(self, device: str, devices: int, max_epochs: int): ...


class Logger:
    def __init__(self, project: str): ...


@dataclass
class Frame:
    seed: int
    tag: str
    runs: str
    resume: bool
    retry: Literal["none", "failed"]
    evaluation: Annotated[config.Evaluation, EVALUATION_ONLY]
    part: Part
    model: Part
    data: Data
    trainer: Trainer
    logger: Logger


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{target}", **arguments}


COMPLETE = """
seed: 0
tag: run
runs: runs
resume: true
retry: none
evaluation: {resolution: network, fpr_limit: 0.3, target_fpr: 0, overlays: 1, bootstrap: 2,
  save_maps: false, poison: false}
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
data: {_target_: HERE.Data, root: d, category: c, workers: 0, seed: "${seed}", part: "${part}", textures: null}
trainer: {_target_: HERE.Trainer, device: cpu, devices: 1, max_epochs: 2}
logger: {_target_: HERE.Logger, project: p}
"""


def complete() -> dict[str, Any]:
    return yaml.safe_load(COMPLETE.replace("HERE", __name__))


@pytest.fixture(autouse=True)
def _small_frame(monkeypatch):
    own = [f"{__name__}.{name}" for name, value in globals().items() if isinstance(value, type | type(node))]
    monkeypatch.setattr(config, "Frame", Frame)
    monkeypatch.setattr(config, "FOREIGN_TARGETS", (*config.FOREIGN_TARGETS, *own))


def changed(path: str, value: Any) -> Any:
    cfg = OmegaConf.create(complete())
    OmegaConf.update(cfg, path, value, merge=False)
    return cfg


def removed(path: str) -> Any:
    cfg = OmegaConf.create(complete())
    parent, _, key = path.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[key]
    return cfg


def message(cfg: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.validate(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_value_fits_and_floats_are_floats():
    leaves = {path: value for path, value, _ in config.validate(OmegaConf.create(complete()))}
    assert leaves["model.number"] == 1.0
    assert type(leaves["model.number"]) is float
    assert [type(x) for x in leaves["model.numbers"]] == [float, float]
    assert leaves["model.sizes"] == [3, 4]
    assert leaves["model.table.a"] == 1.0
    assert leaves["model.parts[1].length"] == 3.0
    assert leaves["model.anything.x"] == [None, "y"]
    assert leaves["data.part.length"] == 1.5
    assert "model.default" not in leaves


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.integer", "a", 'must be a whole number, not "a"'),
        ("model.integer", "1", 'must be a whole number, not "1"'),
        ("model.integer", 1.0, "must be a whole number, not 1.0"),
        ("model.integer", True, "must be a whole number, not true"),
        ("model.integer", None, "must be a whole number, not null"),
        ("model.integer", {"a": 1}, "must be a whole number, not a mapping"),
        ("model.integer", node("Bolt", length=1), f"must be a whole number, not {__name__}.Bolt"),
        ("model.number", "1e-4", 'must be a number, not "1e-4"'),
        *[(f"model.{key}", float("nan"), "must be finite, not nan") for key in ("number", "old_maybe", "anything")],
        *[("model.number", value, f"must be finite, not {value}") for value in (float("inf"), float("-inf"))],
        ("model.flag", "true", 'must be true or false, not "true"'),
        ("model.text", 3, "must be text, not 3; as text: model.text=\"'3'\""),
        ("model.text", True, "must be text, not true; as text: model.text=\"'true'\""),
        ("model.colour", "gren", 'must be one of red, green, not "gren"; did you mean green?'),
        ("model.colour", "x", 'must be one of red, green, not "x"'),
        ("model.level", True, "must be one of 1, 2, not true"),
        ("model.maybe", "a", 'must be a whole number or null, not "a"'),
        ("model.old_maybe", "a", 'must be a number or null, not "a"'),
        ("model.sizes", "34", 'must be a list of whole numbers, not "34"'),
        ("model.pair", [1], "must be tuple, not [1]"),
        ("model.pair", [1, "x", 2], 'must be tuple, not [1, "x", 2]'),
        ("model.size", "a", 'must be a whole number or a list of whole numbers, not "a"'),
        ("model.table", [1], "must be a mapping of numbers, not [1]"),
        ("model.part", None, "must be Part, not null"),
        ("model.part", "Bolt", 'must be Part, not "Bolt"'),
        ("model.part", {"length": 1}, "must be Part, not a mapping"),
        ("model.part", node("Stranger", length=1), f"must be Part, not {__name__}.Stranger"),
        ("model.part", node("make_stranger", length=1), f"must be Part, not {__name__}.make_stranger"),
        ("model.optimizer", node("Bolt", _partial_=True), f"must be Callable, not {__name__}.Bolt"),
        ("retry", "fialed", 'must be one of none, failed, not "fialed"; did you mean failed?'),
        ("evaluation.fpr_limit", "a", 'must be a number, not "a"'),
        ("trainer", {"device": "cpu", "devices": 1, "max_epochs": 2}, "must be Trainer, not a mapping"),
    ],
)
def test_a_misfit_names_its_path(path, value, expected):
    assert message(changed(path, value)) == f"{path} {expected}"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.sizes", [1, "a"], 'model.sizes[1] must be a whole number, not "a"'),
        ("model.size", [1, 2.0], "model.size[1] must be a whole number, not 2.0"),
        ("model.pair", ["x", 1], 'model.pair[0] must be a whole number, not "x"'),
        ("model.numbers", [1, None], "model.numbers[1] must be a number, not null"),
        ("model.table", {"a": "b"}, 'model.table.a must be a number, not "b"'),
        ("model.parts", [node("Bolt", lenght=1)], "model.parts[0].lenght is no key; did you mean length?"),
        ("model.anything", node("Bolt", lenght=1), "model.anything.lenght is no key; did you mean length?"),
        ("modle", 1, "modle is no key; did you mean model?"),
        ("model.part.lenght", 1, "model.part.lenght is no key; did you mean length?"),
        ("evaluation.fpr_limt", 1, "evaluation.fpr_limt is no key; did you mean fpr_limit?"),
        ("evaluation._target_", f"{__name__}.Bolt", f"evaluation must be Evaluation, not {__name__}.Bolt"),
        ("model.part._args_", [1], "model.part._args_ is no key; did you mean _target_?"),
        ("model.part._recursive_", False, "model.part._recursive_ is no key; there are: _target_, "),
        ("model.part._partial_", True, "model.part._partial_ must be false"),
        ("model.optimizer._partial_", False, "model.optimizer._partial_ must be true"),
        ("model.optimizer._partial_", "yes", "model.optimizer._partial_ must be true"),
        ("model.optimizer.amsgrd", True, "model.optimizer.amsgrd is no key; did you mean amsgrad?"),
        ("model.optimizer.params", [], "model.optimizer.params is no key; "),
        ("model.optimizer.betas", [0.5], "model.optimizer.betas must be"),
        ("model.integer", "???", "model.integer is missing: give model.integer=VALUE"),
        ("model.size", "???", "model.size is missing: give model.size=VALUE"),
        ("model.integer", "${model.levle}", "model.integer: Interpolation key 'model.levle' not found"),
        ("data.part", "${model.part.length}", "data.part must be Part, not 2.0"),
    ],
)
def test_what_is_wrong_deeper_or_in_the_keys_is_named(path, value, expected):
    assert message(changed(path, value)).startswith(expected)


@pytest.mark.parametrize(
    "path", ["tag", "model", "model.integer", "evaluation", "evaluation.overlays", "model.part.length"]
)
def test_a_missing_key_is_named(path):
    assert message(removed(path)) == f"{path} is missing: give {path}=VALUE"


def test_a_missing_value_is_named_also_where_another_key_points_to_it():
    cfg = changed("model.integer", "${data.workers}")
    cfg.data.workers = "???"
    assert message(cfg) == "data.workers is missing: give data.workers=VALUE"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("os.system", "os.system is neither in anomaly_lab nor one of torch.optim.Adam,"),
        ("anomaly_lab_plugin.Bolt", "anomaly_lab_plugin.Bolt is neither in anomaly_lab nor"),
        ("Bolt", "Bolt is neither"),
        (5, "5 is neither"),
        ("anomaly_lab.errors.ConfigEror", "no final class or function ConfigEror; did you mean ConfigError?"),
        ("anomaly_lab.synthesis.base.Synthesizer", "no final class or function Synthesizer"),
        ("anomaly_lab.config.importlib", "anomaly_lab.config has no final class or function importlib"),
        ("anomaly_lab.config._scalar", "anomaly_lab.config has no final class or function _scalar"),
        ("anomaly_lab.no.Bolt", "anomaly_lab.no.Bolt cannot be imported: No module named 'anomaly_lab.no'"),
        ("anomaly_lab.broken.Bolt", "anomaly_lab.broken.Bolt cannot be imported: "),
    ],
)
def test_a_target_must_be_ours_or_listed_and_exist(monkeypatch, target, expected):
    monkeypatch.setitem(sys.modules, "anomaly_lab.broken", None)  # importing it raises, as a missing dependency does
    said = message(changed("model.part._target_", target))
    assert said.startswith("model.part._target_: ")
    assert expected in said


@pytest.mark.parametrize(
    ("name", "arguments"), [("Adam", {}), ("AdamW", {"weight_decay": 0}), ("SGD", {"momentum": 0.9})]
)
def test_what_is_accepted_of_an_optimizer_builds_it(name, arguments):
    cfg = changed("model.optimizer", {"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 0.1, **arguments})
    config.validate(cfg)
    made = instantiate(cfg.model.optimizer)
    assert isinstance(made, partial)
    assert isinstance(made([torch.zeros(1, requires_grad=True)]), getattr(torch.optim, name))


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "+1e-4", "5", "-5.e2"])
def test_what_yaml_calls_a_number_is_a_float(text):
    cfg = OmegaConf.merge(complete(), OmegaConf.create(f"model: {{number: {text}}}"))
    assert {path: value for path, value, _ in config.validate(cfg)}["model.number"] == float(text)


def test_the_hashes_are_of_the_values_that_count():
    cfg = OmegaConf.create(complete())
    flat = {f"model.{k}": v for k, v in complete()["model"].items() if not isinstance(v, dict) and k != "parts"}
    flat |= {"model.number": 1.0, "model.old_maybe": 2.0, "model.numbers": [1.0, 2.5]}
    flat |= {"model.table.a": 1.0, "model.table.b": 2.0, "model.anything.x": [None, "y"]}
    flat |= {"model.part._target_": f"{__name__}.Bolt", "model.part.length": 2.0}
    flat |= {"model.parts[0]._target_": f"{__name__}.Bolt", "model.parts[0].length": 1.0}
    flat |= {"model.parts[1]._target_": f"{__name__}.make_bolt", "model.parts[1].length": 3.0}
    flat |= {f"model.optimizer.{k}": v for k, v in complete()["model"]["optimizer"].items()}
    flat |= {f"{k}._target_": f"{__name__}.Bolt" for k in ("part", "data.part")}
    flat |= {"part.length": 1.5, "data.part.length": 1.5, "data._target_": f"{__name__}.Data", "data.category": "c"}
    flat |= {"data.seed": 0, "data.textures": None, "trainer._target_": f"{__name__}.Trainer", "trainer.max_epochs": 2}
    evaluation = {f"evaluation.{k}": v for k, v in complete()["evaluation"].items()} | {"evaluation.target_fpr": 0.0}
    parts = ({**flat, **evaluation, "model.part.k": 5}, flat)
    expected = [hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for part in parts]
    assert config.hashes(cfg) == tuple(expected)


OTHERWISE = """
trainer: {device: cuda, devices: 2}
data: {workers: 3, root: e}
logger: {_target_: HERE.Logger, project: q}
resume: false
retry: failed
tag: t
runs: r
seed: 7
"""


@pytest.mark.parametrize(
    "path",
    ["logger", "logger.project", "trainer.device", "trainer.devices", "data.workers", "data.root", "seed", "runs"],
)
def test_an_ignored_key_changes_no_hash(path):
    value = OmegaConf.select(OmegaConf.create(OTHERWISE.replace("HERE", __name__)), path)
    assert OmegaConf.select(OmegaConf.create(complete()), path) not in (value, None)
    assert config.hashes(changed(path, value)) == config.hashes(OmegaConf.create(complete()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("model.integer", 2), ("model.sizes", [4, 3]), ("model.parts", []), ("model.optimizer.lr", 0.2)],
        *[("data.category", "d"), ("data.textures", "dtd"), ("data.seed", 1), ("part.length", 2.5)],
        *[("trainer.max_epochs", 3), ("model.default", 4), ("model.part._target_", f"{__name__}.make_bolt")],
    ],
)
def test_another_value_is_another_training(path, value):
    cfg = changed(path, value)
    if path.endswith("_target_"):
        del cfg.model.part["k"]
    assert not {*config.hashes(cfg)} & {*config.hashes(OmegaConf.create(complete()))}


@pytest.mark.parametrize(
    ("path", "value"), [("evaluation.overlays", 2), ("evaluation.resolution", "original"), ("model.part.k", 6)]
)
def test_what_acts_at_evaluation_only_is_another_run_but_no_other_training(path, value):
    (run, training), (other_run, other_training) = (
        config.hashes(changed(path, value)),
        config.hashes(OmegaConf.create(complete())),
    )
    assert run != other_run
    assert training == other_training


def test_order_and_spelling_of_values_do_not_count():
    cfg = changed("model.number", 1.0)
    turned = OmegaConf.create(dict(reversed(OmegaConf.to_container(cfg).items())))
    assert config.hashes(turned) == config.hashes(OmegaConf.create(complete()))


def test_differing_names_what_was_set_and_not_what_follows_from_it():
    cfg, recipe = OmegaConf.create(complete()), changed("data.category", "???")
    cfg.part.length, cfg.seed, cfg.data.root = 9, 4, "elsewhere"
    cfg.model.sizes, cfg.model.number = [4], 1.0
    cfg.model.integer = "${part.length}"
    wanted = {"part.length": 9, "model.sizes": [4], "model.integer": 9, "data.category": "c"}
    assert config.differing(cfg, recipe) == wanted
    assert config.differing(recipe, recipe) == {}


def test_the_values_of_the_frame_are_in_its_yaml_and_nowhere_else():
    content = yaml.safe_load((Path(__file__).parent.parent / "conf" / "config.yaml").read_text())
    parts = {next(iter(part)) for part in content.pop("defaults") if isinstance(part, dict)}
    parts.remove("override hydra/job_logging")
    assert parts == set(config.GROUPS)
    del content["hydra"]
    assert {*content, *parts} == {field.name for field in fields(FRAME)}
    assert set(content["evaluation"]) == {field.name for field in fields(config.Evaluation)}
