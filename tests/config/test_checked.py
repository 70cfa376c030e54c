"""What a checked config says: hashes against texts written by hand, on a small frame and on ours."""

import hashlib
import json
import shlex
from dataclasses import fields
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from anomaly_lab.config import checked as module
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.command_line import keep_text
from anomaly_lab.config.composing import GROUPS
from anomaly_lab.config.frame import Frame as OurFrame
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import ConfigError
from anomaly_lab.evaluation.settings import EvaluationSettings
from tests.config.small_frame import ALLOW, Frame, changed, complete
from tests.support.runs import CONF, asked, checked

HERE = "tests.config.small_frame"


@pytest.fixture
def _small_frame(monkeypatch):
    monkeypatch.setattr(module, "Frame", Frame)


def hashes(cfg: Any) -> tuple[str, str]:
    found = Checked.of(cfg, ALLOW)
    return found.config_hash, found.recipe_hash


def message(cfg: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Checked.of(cfg, ALLOW)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# On the small frame


@pytest.mark.usefixtures("_small_frame")
def test_a_key_that_points_nowhere_is_named():
    said = message(changed("model.integer", "${model.levle}"))
    assert said.startswith("model.integer: Interpolation key 'model.levle' not found")


@pytest.mark.usefixtures("_small_frame")
def test_a_missing_value_is_named_also_where_another_key_points_to_it():
    cfg = changed("model.integer", "${data.workers}")
    cfg.data.workers = "???"
    assert message(cfg) == "data.workers is missing: give data.workers=VALUE"


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(
    ("path", "value", "typed", "line"),
    [
        ("model.text", 3, "model.text=3", "must be text, not 3; as text: \"model.text='3'\""),
        ("model.text", True, "+model.text=true", "must be text, not true; as text: \"model.text='true'\""),
        ("tag", 0.1, "tag=1e-1", "must be text, not 0.1; as text: \"tag='1e-1'\""),
        ("tag", 1250, "tag=12_50", "must be text, not 1250; as text: \"tag='12_50'\""),
        ("tag", 12, "tag=1_2,3", "must be text, not 12; as text: \"tag='1_2','3'\""),
        ("tag", float("nan"), "tag=nan", "must be text, not NaN; as text: \"tag='nan'\""),
        ("tag", float("inf"), "tag=inf", "must be text, not Infinity; as text: \"tag='inf'\""),
        ("tag", None, "tag=null", "must be text, not null; as text: \"tag='null'\""),
        ("tag", 1, "tag=range(1,3)", "must be text, not 1; put it in quotes, to make it text"),
        ("tag", 7, "model.text=7", "must be text, not 7; put it in quotes, to make it text"),
        ("model.integer", 1.5, "model.integer=1.5", "must be a whole number, not 1.5"),
    ],
)
def test_what_hydra_read_as_a_number_is_told_how_to_be_typed_as_text(path, value, typed, line):
    with pytest.raises(ConfigError) as caught:
        Checked.of(changed(path, value), ALLOW, overrides=["seed=1", typed])
    assert str(caught.value) == f"{path} {line}"


def test_a_list_of_numbers_is_told_how_to_be_typed_as_text():
    asking = asked("model=nearest", "tags=[1,'b',c]")
    with pytest.raises(ConfigError) as caught:
        Checked.of(asking.cfg, (), asking.recipe, asking.overrides)
    assert str(caught.value) == """tags[0] must be text, not 1; as text: "tags=['1','b','c']\""""


def test_advice_leads_to_a_config_that_fits():
    given = ["data=folder", "data.root=x", "data.category=1e5", "data.abnormal=[1_2,'a,b',große Delle,null]"]
    for _ in range(3):  # one after the other: the category, then an item of the list
        asking = asked(*map(keep_text, given))
        try:
            Checked.of(asking.cfg, (), asking.recipe, asking.overrides)
            break
        except ConfigError as error:
            (advised,) = shlex.split(str(error).partition("; as text: ")[2])
            given = [advised if one.split("=")[0] == advised.split("=")[0] else one for one in given]
    assert asking.cfg.data.category == "1e5"
    assert asking.cfg.data.abnormal == ["1_2", "a,b", "große Delle", "null"]


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("tag", "a/b"), ("tag", "a\u00a0b"), ("tag", 101 * "a"), ("tag", 51 * "ä")],
        *[("seed", -1), ("seed", 2**32)],
    ],
)
def test_a_tag_that_names_no_folder_and_a_seed_that_numpy_refuses_are_one_line(path, value):
    cfg = changed(path, value)
    said = message(cfg)
    assert said.startswith(f"tag={cfg.tag[:100]!r}, seed={cfg.seed}: a tag has no slash, ")
    assert said.endswith("at most 100 bytes; a seed lies in 0 .. 2^32 - 1")


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(("path", "value"), [("tag", 100 * "a"), ("tag", "ä b, [c]"), ("seed", 2**32 - 1)])
def test_any_other_tag_and_seed_are_taken(path, value):
    assert hashes(changed(path, value)) == hashes(OmegaConf.create(complete()))


@pytest.mark.usefixtures("_small_frame")
def test_the_hashes_are_of_the_values_that_count():
    """A class of ours counts by its name alone, so that moving a file makes no other run."""
    cfg = OmegaConf.create(complete())
    plain = {k: v for k, v in complete()["model"].items() if not isinstance(v, dict) and k != "parts"}
    flat = {f"model.{k}": v for k, v in plain.items()}
    flat |= {"model.number": 1.0, "model.old_maybe": 2.0, "model.numbers": [1.0, 2.5]}
    flat |= {"model.table.a": 1.0, "model.table.b": 2.0, "model.anything.x": [None, "y"]}
    flat |= {"model.part._target_": f"{HERE}.Bolt", "model.part.length": 2.0}
    flat |= {"model.parts[0]._target_": f"{HERE}.Bolt", "model.parts[0].length": 1.0}
    flat |= {"model.parts[1]._target_": f"{HERE}.make_bolt", "model.parts[1].length": 3.0}
    flat |= {f"model.optimizer.{k}": v for k, v in complete()["model"]["optimizer"].items()}
    flat |= {f"{k}._target_": f"{HERE}.Bolt" for k in ("part", "data.part")}
    flat |= {"part.length": 1.5, "data.part.length": 1.5, "data._target_": f"{HERE}.Data"}
    flat |= {"data.category": "c", "data.seed": "follows the seed", "data.textures": None}
    flat |= {"trainer._target_": f"{HERE}.Trainer", "trainer.max_epochs": 2}
    evaluation = {f"evaluation.{k}": v for k, v in complete()["evaluation"].items()}
    evaluation |= {"evaluation.target_fpr": 0.0, "evaluation._target_": "EvaluationSettings"}
    parts = ({**flat, **evaluation, "model.part.k": 5}, flat)
    expected = [hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for part in parts]
    assert hashes(cfg) == tuple(expected)


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


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(
    "path",
    [
        *("logger", "logger.project", "trainer.device", "trainer.devices", "data.workers", "data.root"),
        *("resume", "retry", "tag", "seed", "runs"),
    ],
)
def test_a_key_marked_as_no_other_run_changes_no_hash(path):
    value = OmegaConf.select(OmegaConf.create(OTHERWISE.replace("HERE", HERE)), path)
    assert OmegaConf.select(OmegaConf.create(complete()), path) not in (value, None)
    assert hashes(changed(path, value)) == hashes(OmegaConf.create(complete()))


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("model.integer", 2), ("model.sizes", [4, 3]), ("model.parts", []), ("model.optimizer.lr", 0.2)],
        *[("data.category", "d"), ("data.textures", "dtd"), ("data.seed", 1), ("part.length", 2.5)],
        *[("trainer.max_epochs", 3), ("model.default", 4), ("model.part._target_", f"{HERE}.make_bolt")],
    ],
)
def test_another_value_is_another_training(path, value):
    cfg = changed(path, value)
    if path.endswith("_target_"):
        del cfg.model.part["k"]
    assert not {*hashes(cfg)} & {*hashes(OmegaConf.create(complete()))}


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize(
    ("path", "value"),
    [("evaluation.overlays", 2), ("evaluation.resolution", "original"), ("model.part.k", 6)],
)
def test_what_acts_at_evaluation_only_is_another_run_but_no_other_training(path, value):
    run, training = hashes(changed(path, value))
    other_run, other_training = hashes(OmegaConf.create(complete()))
    assert run != other_run
    assert training == other_training


@pytest.mark.usefixtures("_small_frame")
def test_order_and_spelling_of_values_do_not_count():
    cfg = changed("model.number", 1.0)
    turned = OmegaConf.create(dict(reversed(OmegaConf.to_container(cfg).items())))
    assert hashes(turned) == hashes(OmegaConf.create(complete()))


@pytest.mark.usefixtures("_small_frame")
def test_a_value_that_happens_to_be_the_seed_counts_and_one_that_points_to_it_does_not():
    pointing, equal = changed("model.integer", "${seed}"), changed("model.integer", 7)
    same = hashes(pointing)
    pointing.seed = equal.seed = 7
    assert hashes(pointing) == same
    assert not {*hashes(equal)} & {*same}


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_value_of_its_own_is_told_from_the_seed_whatever_both_are(seed):
    pointing, fixed = changed("model.integer", "${seed}"), changed("model.integer", 0)
    pointing.seed = fixed.seed = seed
    assert not {*hashes(pointing)} & {*hashes(fixed)}


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize("path", ["model.number", "model.numbers", "model.parts"])
def test_whatever_points_to_the_seed_does_not_count(path):
    bolt = {"_target_": f"{HERE}.Bolt", "length": "${seed}"}
    cfg = changed(
        path, {"model.number": "${seed}", "model.numbers": ["${seed}"], "model.parts": [bolt]}[path]
    )
    same = hashes(cfg)
    cfg.seed = 7
    assert hashes(cfg) == same


@pytest.mark.usefixtures("_small_frame")
@pytest.mark.parametrize("value", [{1: 2}, {"a.b": 2}, {"a": {"b[0]": 1}}])
def test_a_key_of_a_mapping_may_be_a_number_or_have_a_dot(value):
    assert hashes(changed("model.anything", value)) != hashes(OmegaConf.create(complete()))


@pytest.mark.usefixtures("_small_frame")
def test_differing_names_what_was_set_and_not_what_follows_from_it():
    cfg, recipe = OmegaConf.create(complete()), changed("data.category", "???")
    cfg.part.length, cfg.seed, cfg.data.root = 9, 4, "elsewhere"
    cfg.model.sizes, cfg.model.number = [4], 1.0
    cfg.model.integer = "${part.length}"
    wanted = {"part.length": 9, "model.sizes": [4], "model.integer": 9, "data.category": "c"}
    assert Checked.of(cfg, ALLOW, recipe).differs == wanted
    assert Checked.of(cfg, ALLOW, cfg).differs == {}
    assert Checked.of(cfg, ALLOW).differs == {}


# On our own


def test_the_values_of_the_frame_are_in_its_yaml_and_nowhere_else():
    content = yaml.safe_load((CONF / "config.yaml").read_text())
    parts = {next(iter(part)) for part in content.pop("defaults") if isinstance(part, dict)}
    parts -= {"override hydra/job_logging", "override hydra/sweeper", "experiment"}
    assert parts == set(GROUPS)
    del content["hydra"]
    assert {*content, *parts} == {field.name for field in fields(OurFrame)}
    assert set(content["evaluation"]) == {"_target_", *(field.name for field in fields(EvaluationSettings))}
    every = {field.name for field in fields(AnomalyDataModule)}
    assert set(content["data"]) == every - {"root", "category"}  # which each data set gives


BASE = ("model=draem_small", "data=mvtec", "data.category=part")


@pytest.mark.parametrize(
    "override",
    [
        *(
            "logger=wandb",
            "logger=[csv,wandb,tensorboard,mlflow]",
            "trainer.device=cpu",
            "trainer.save_minutes=1",
            "data.workers=3",
        ),
        *(
            "data.memory_gb=1",
            "data.max_megapixels=9",
            "data.root=elsewhere",
            "resume=false",
            "retry=failed",
            "tag=t",
            "runs=r",
            "seed=4",
        ),
        *("synthesis.textures_gb=9", "tags=[a]", "allow=[mine]", "cache.folder=c", "cache.gigabytes=1"),
    ],
)
def test_keys_that_change_no_result_change_no_hash(override):
    found, base = checked(*BASE, override), checked(*BASE)
    assert (found.config_hash, found.recipe_hash) == (base.config_hash, base.recipe_hash)
    key = override.partition("=")[0]
    marks = [leaf.same_run for leaf in found.leaves if f"{leaf.path}.".startswith(f"{key}.")]
    assert marks
    assert all(marks)


def test_textures_count_where_they_are_made_anomalies_of_and_nowhere_else():
    frozen = ("model=patchcore_small", *BASE[1:])
    assert checked(*frozen, "textures=elsewhere").config_hash == checked(*frozen).config_hash
    trained, recipe = asked(*BASE, "textures=elsewhere"), asked(*BASE)
    assert checked(*BASE, "textures=elsewhere").recipe_hash != checked(*BASE).recipe_hash
    assert (
        checked(*BASE, "textures=elsewhere").recipe_hash
        == checked(*BASE, "synthesis.textures=elsewhere").recipe_hash
    )
    assert Checked.of(trained.cfg, (), recipe.cfg).differs == {"synthesis.textures": "elsewhere"}
    assert Checked.of(asked(*BASE, "seed=3").cfg, (), recipe.cfg).differs == {}


def test_no_other_key_is_left_out_of_the_hashes():
    cached = {f"{at}cache.{key}" for at in ("", "model.") for key in ("_target_", "folder", "gigabytes")}
    wanted = {
        "seed",
        "tag",
        "tags",
        "runs",
        "allow",
        "resume",
        "retry",
        "textures",
        "logger.csv._target_",
        *cached,
    }
    wanted |= {"data.root", "data.workers", "data.memory_gb", "data.max_megapixels"}
    wanted |= {"trainer.device", "trainer.devices", "trainer.nodes", "trainer.save_minutes"}
    textures = {"synthesis.textures_gb", "data.synthesis.textures_gb"}
    for model, own in (("draem_small", textures), ("patchcore_small", cached)):
        leaves = checked(f"model={model}", *BASE[1:]).leaves
        without = set() if own is cached else {path for path in cached if path.startswith("model.")}
        assert {leaf.path for leaf in leaves if leaf.same_run} == (wanted | own) - without


def test_composing_twice_gives_the_same_hashes():
    assert checked(*BASE).config_hash == checked(*BASE).config_hash
    assert checked(*BASE).recipe_hash == checked(*BASE).recipe_hash


def test_the_weights_that_a_config_names_are_known(tmp_path):
    assert checked("model=nearest", *BASE[1:]).weights == []
    assert checked(*BASE).weights == ["random"]
    assert checked("model=patchcore_small", *BASE[1:], "model.backbone.weights=random").weights == ["random"]
