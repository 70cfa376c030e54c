"""The checker against a class with one argument of each kind."""

import sys
from collections.abc import Collection
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from anomaly_lab.config.building import instantiate
from anomaly_lab.config.schema import Leaf, Schema
from anomaly_lab.errors import ConfigError
from tests.config.small_frame import ALLOW, Frame, changed, complete, node, removed

HERE = "tests.config.small_frame"


def leaves(cfg: Any, allow: Collection[str] = ALLOW) -> list[Leaf]:
    return Schema(Frame, allow).leaves(OmegaConf.to_container(cfg, resolve=True))


def message(cfg: Any, allow: Collection[str] = ALLOW) -> str:
    with pytest.raises(ConfigError) as caught:
        leaves(cfg, allow)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_value_fits_and_floats_are_floats():
    found = {leaf.path: leaf.value for leaf in leaves(OmegaConf.create(complete()))}
    assert found["model.number"] == 1.0
    assert type(found["model.number"]) is float
    assert [type(x) for x in found["model.numbers"]] == [float, float]
    assert found["model.sizes"] == [3, 4]
    assert found["model.table.a"] == 1.0
    assert found["model.parts[1].length"] == 3.0
    assert found["model.anything.x"] == [None, "y"]
    assert found["data.part.length"] == 1.5
    assert "model.default" not in found


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.integer", "a", 'must be a whole number, not "a"'),
        ("model.integer", "1", 'must be a whole number, not "1"'),
        ("model.integer", 1.0, "must be a whole number, not 1.0"),
        ("model.integer", True, "must be a whole number, not true"),
        ("model.integer", None, "must be a whole number, not null"),
        ("model.integer", {"a": 1}, "must be a whole number, not a mapping"),
        ("model.integer", node("Bolt", length=1), f"must be a whole number, not {HERE}.Bolt"),
        ("model.number", "1e-4", 'must be a number, not "1e-4"'),
        *[
            (f"model.{key}", float("nan"), "must be finite, not nan")
            for key in ("number", "old_maybe", "anything")
        ],
        *[("model.number", value, f"must be finite, not {value}") for value in (float("inf"), float("-inf"))],
        ("model.flag", "true", 'must be true or false, not "true"'),
        ("model.text", 3, "must be text, not 3; put it in quotes, to make it text"),
        ("model.text", float("nan"), "must be text, not NaN; put it in quotes, to make it text"),
        ("model.text", None, "must be text, not null; put it in quotes, to make it text"),
        ("model.text", True, "must be text, not true; put it in quotes, to make it text"),
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
        (
            "model.part",
            {"length": 1},
            "must be Part, not a mapping without _target_: add the class, as _target_: MODULE.CLASS",
        ),
        ("model.part", node("Stranger", length=1), f"must be Part, not {HERE}.Stranger"),
        ("model.part", node("make_stranger", length=1), f"must be Part, not {HERE}.make_stranger"),
        ("model.optimizer", node("Bolt", _partial_=True), f"must be Callable, not {HERE}.Bolt"),
        ("retry", "fialed", 'must be one of none, failed, not "fialed"; did you mean failed?'),
        ("evaluation.fpr_limit", "a", 'must be a number, not "a"'),
        (
            "trainer",
            {"device": "cpu", "devices": 1, "max_epochs": 2},
            "must be Trainer, not a mapping without _target_: add the class, as _target_: MODULE.CLASS",
        ),
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
        ("evaluation._target_", f"{HERE}.Bolt", f"evaluation must be EvaluationSettings, not {HERE}.Bolt"),
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


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("os.system", "os.system is neither in anomaly_lab nor one of torch.optim.Adam,"),
        ("anomaly_lab_plugin.Bolt", "anomaly_lab_plugin.Bolt is neither in anomaly_lab nor"),
        ("Bolt", "Bolt is neither"),
        (5, "5 is neither"),
        ("anomaly_lab.errors.ConfigEror", "no final class or function ConfigEror; did you mean ConfigError?"),
        ("anomaly_lab.synthesis.base.Synthesizer", "no final class or function Synthesizer"),
        (
            "anomaly_lab.config.schema.importlib",
            "anomaly_lab.config.schema has no final class or function importlib",
        ),
        (
            "anomaly_lab.config.schema._scalar",
            "anomaly_lab.config.schema has no final class or function _scalar",
        ),
        ("anomaly_lab.no.Bolt", "anomaly_lab.no.Bolt cannot be imported: No module named 'anomaly_lab.no'"),
        ("anomaly_lab.broken.Bolt", "anomaly_lab.broken.Bolt cannot be imported: "),
    ],
)
def test_a_target_must_be_ours_or_listed_and_exist(monkeypatch, target, expected):
    monkeypatch.setitem(
        sys.modules, "anomaly_lab.broken", None
    )  # importing it raises, as a missing dependency does
    said = message(changed("model.part._target_", target))
    assert said.startswith("model.part._target_: ")
    assert expected in said


@pytest.mark.parametrize("target", ["os.system", "stranger.Bolt", "tests_too.Bolt"])
def test_a_target_elsewhere_needs_its_top_level_module_in_allow(target):
    said = message(changed("model.part._target_", target))
    assert said.endswith(f"; if it is code of your own, give 'allow=[{target.partition('.')[0]}]'")


@pytest.mark.parametrize(
    "content", ["raise ValueError('two\\nlines')", "def broken(:", "import nowhere_at_all"]
)
def test_own_code_that_cannot_be_imported_is_one_line_and_other_code_is_not_even_imported(
    tmp_path, monkeypatch, content
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n{content}\n")
    cfg = changed("model.part._target_", "stranger.Bolt")
    assert "stranger.Bolt is neither in anomaly_lab nor" in message(cfg)
    assert not (tmp_path / "imported").exists()
    said = message(cfg, [*ALLOW, "stranger"])
    assert said.startswith("model.part._target_: stranger.Bolt cannot be imported: ")
    assert (tmp_path / "imported").exists() is (content != "def broken(:")


def test_a_mark_holds_for_all_that_stands_below_it():
    found = leaves(OmegaConf.create(complete()))
    same_run = {"seed", "tag", "runs", "resume", "retry", "data.root", "data.workers", "trainer.device"}
    same_run |= {"trainer.devices", "logger._target_", "logger.project"}
    assert {leaf.path for leaf in found if leaf.same_run} == same_run
    evaluation = {f"evaluation.{key}" for key in complete()["evaluation"]}
    assert {leaf.path for leaf in found if leaf.evaluation_only} == {*evaluation, "model.part.k"}


@pytest.mark.parametrize(
    ("name", "arguments"), [("Adam", {}), ("AdamW", {"weight_decay": 0}), ("SGD", {"momentum": 0.9})]
)
def test_what_is_accepted_of_an_optimizer_builds_it(name, arguments):
    cfg = changed(
        "model.optimizer", {"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 0.1, **arguments}
    )
    leaves(cfg)
    made = instantiate(cfg.model.optimizer)
    assert isinstance(made, partial)
    assert isinstance(made([torch.zeros(1, requires_grad=True)]), getattr(torch.optim, name))


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "+1e-4", "5", "-5.e2"])
def test_what_yaml_calls_a_number_is_a_float(text):
    cfg = OmegaConf.merge(complete(), OmegaConf.create(f"model: {{number: {text}}}"))
    assert {leaf.path: leaf.value for leaf in leaves(cfg)}["model.number"] == float(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", r"a\nb"), ("a\x00", r"a\x00"), ("Ger\udce4t", r"Ger\xe4t"), ("a\u2028b", r"a\u2028b")],
)
def test_a_text_that_breaks_a_line_or_is_no_utf8_is_refused(text, shown):
    said = message(changed("model.text", text))
    assert said.startswith(f"model.text: {shown}: a text has no control signs and is UTF-8; ")
    assert message(changed("model.anything", {"x": [text]})).startswith(f"model.anything.x[0]: {shown}: ")
