"""What a user types for ``logger=``: one word, a list of them, keys of each, and words of other projects."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException

from anomaly_lab.config.building import built
from anomaly_lab.config.command_line import readable
from anomaly_lab.errors import ConfigError, mendable
from anomaly_lab.train import run
from anomaly_lab.training.loggers.base import Csv
from anomaly_lab.training.loggers.tensorboard import TensorBoard
from tests.support.runs import asked, checked, composed, options


def test_one_word_is_one_mirror_and_the_default_is_csv():
    assert [type(mirror) for mirror in built(composed().logger).values()] == [Csv]
    assert list(composed("logger=tensorboard").logger) == ["tensorboard"]


def test_a_list_is_several_each_with_its_keys():
    cfg = asked("logger=[csv,wandb,tensorboard,mlflow]", "logger.wandb.project=mine", "runs=r")
    assert list(cfg.cfg.logger) == ["csv", "wandb", "tensorboard", "mlflow"]
    assert (cfg.cfg.logger.wandb.project, cfg.cfg.logger.mlflow.folder) == ("mine", "r/mlflow")
    assert cfg.choices["logger"] == "csv,wandb,tensorboard,mlflow"
    mirrors = built(composed("logger=[csv,tensorboard]").logger)
    assert {name: type(mirror) for name, mirror in mirrors.items()} == {
        "csv": Csv,
        "tensorboard": TensorBoard,
    }


@pytest.mark.parametrize("option", options("logger"))
def test_each_option_fits_and_stands_under_its_name(option):
    assert list(checked(f"logger={option}").config["logger"]) == [option]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["logger=wandb", "+logger.wandb.projct=x"], "logger.wandb.projct is no key; did you mean project?"),
        (
            ["logger=wandb", "logger.wandb.mode=on"],
            "logger.wandb.mode must be one of auto, online, offline, disab",
        ),
        (
            ["+logger._target_=anomaly_lab.training.loggers.base.Csv"],
            "logger must be a mapping of Mirrors, not ",
        ),
        (["logger=[]"], "logger is missing: give logger=VALUE"),
    ],
)
def test_what_does_not_fit_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as error:
        checked(*overrides)
    assert str(error.value).startswith(line)


def said(*overrides: str) -> str:
    """Return what is answered to words from Python, which are those of the command line."""
    import anomaly_lab

    with pytest.raises(ConfigError) as error:
        anomaly_lab.run(overrides=list(overrides))
    return str(error.value)


def test_words_of_other_projects_and_of_before_are_answered():
    assert said("logger=many_loggers") == (
        "logger=many_loggers: several are a list here: 'logger=[wandb,tensorboard]'"
    )
    assert said("logger=csv,wandb") == "logger=csv,wandb: several are a list here: 'logger=[csv,wandb]'"
    assert said("logger=wandb", "logger.project=mine") == (
        "logger.project is called logger.wandb.project here: each logger has keys of its own"
    )
    assert said("logger=wandb", "logger.mlflow.uri=x") == "logger.mlflow is no key; there are: wandb"
    assert said("logger=[csv,wnadb]").startswith("logger=wnadb is no option; did you mean wandb?")


@pytest.mark.parametrize("group", ["model", "data", "synthesis", "trainer"])
def test_of_the_other_groups_one_option_is_taken(group):
    first, second = options(group)[:2]
    line = f"{group}: takes one option, not a list; to run several: -m {group}=A,B"
    assert said(f"{group}=[{first},{second}]") == line


def test_a_list_arrives_as_it_is_typed():
    (word,) = readable(["logger=[csv,wandb]"], "")
    assert OverridesParser.create().parse_override(word).value() == ["csv", "wandb"]


@pytest.mark.parametrize(
    ("overrides", "sweeping", "group"),
    [
        ([], False, None),
        (
            ["hydra.mode=MULTIRUN", "hydra.sweep.dir=r/.sweeps/2026-01-02_03-04-05"],
            True,
            "2026-01-02_03-04-05",
        ),
        (["hydra.mode=MULTIRUN", "tag=july"], True, "july"),
        (["experiment=demo", "tag=july"], True, "demo"),
        (["experiment=demo", "hydra.mode=RUN"], False, None),
        (["tag=july"], False, None),
    ],
)
def test_the_group_of_a_run_is_its_experiment_or_its_sweep(monkeypatch, overrides, sweeping, group):
    import anomaly_lab.config.composing as composing

    seen: list[Any] = []
    real = composing._composition
    monkeypatch.setattr(composing, "_composition", lambda *given: seen.append(real(*given)) or seen[-1])
    if sweeping:
        with pytest.raises(ConfigError, match="a sweep runs on the command line"):
            composing.composed(overrides)
    else:
        composing.composed(overrides)
    assert (seen[0].group, seen[0].sweeping) == (group, sweeping)


def test_a_library_that_is_missing_is_told_before_any_data_is_looked_at(tmp_path, monkeypatch):
    find = "anomaly_lab.training.loggers.base.find_spec"
    monkeypatch.setattr(find, lambda name: None if name == "tensorboard" else "there")
    job = asked("logger=[csv,tensorboard]", "data=mvtec", f"data.root={tmp_path}/none", "data.category=part")
    with pytest.raises(InstantiationException) as error:
        run(job)
    assert str(mendable(error.value)).endswith("pip install anomaly_lab[tensorboard] or give logger=csv")
    assert list(tmp_path.iterdir()) == []
