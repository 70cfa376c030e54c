"""From overrides to a composed config, from Python: alone, and inside somebody's own Hydra application."""

import os
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from anomaly_lab.config.building import VERSION_BASE
from anomaly_lab.config.command_line import asked_from_python
from anomaly_lab.config.composing import GROUPS, Composition, composed
from anomaly_lab.config.own_code import on_path
from anomaly_lab.errors import ConfigError, UserError
from tests.support.runs import CONF

MINE = """
# @package _global_
defaults: [override /synthesis: none]
model: {_target_: anomaly_lab.methods.nearest.Nearest}
trainer: {max_epochs: 3}
"""


@pytest.fixture(autouse=True)
def _kept_process(monkeypatch):
    """Let no import path outlast a test."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONPATH", "before")


@pytest.fixture
def theirs(tmp_path):
    """Somebody's own application, initialised: its config has nothing to do with ours."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text("model: their own\n")
    with initialize_config_dir(str(tmp_path / "theirs"), **VERSION_BASE):
        yield
    assert not GlobalHydra.instance().is_initialized()


def own(folder: Path, name: str = "mine") -> Path:
    """Write a recipe of one's own; return the folder that ``config_dir`` names."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / f"{name}.yaml").write_text(MINE)
    return folder


def plain(asked: Composition) -> list:
    configs = [OmegaConf.to_container(config) for config in (asked.cfg, asked.recipe)]
    return [*configs, asked.choices, asked.overrides, asked.sweeping]


def test_what_was_asked_for_is_composed():
    asked = composed(["model=patchcore_small", "data=mvtec", "data.category=nut", "seed=3", "trainer=debug"])
    assert (asked.cfg.data.category, asked.cfg.seed, asked.cfg.trainer.step_limit) == ("nut", 3, 2)
    assert "hydra" not in asked.cfg
    assert asked.choices == {
        "model": "patchcore_small",
        "data": "mvtec",
        "synthesis": "none",
        "trainer": "debug",
        "logger": "csv",
    }
    assert tuple(asked.choices) == GROUPS
    assert not asked.sweeping


def test_the_overrides_are_kept_as_they_were_given():
    given = ["model=nearest", "data.root='a b'", "tags=[a,b]", "++seed=2"]
    assert composed(given).overrides == given
    assert composed([]).overrides == []


def test_nothing_asked_for_is_the_recipe_of_the_frame():
    asked = composed([])
    assert asked.cfg == asked.recipe
    assert asked.choices["model"] == "draem_small"


def test_the_recipe_is_what_model_and_data_compose_to_with_nothing_else_given():
    asked = composed(["model=nearest", "data=mvtec", "data.image_size=8", "trainer=debug", "tag=t", "seed=2"])
    assert asked.recipe == composed(["model=nearest", "data=mvtec"]).cfg
    assert (asked.recipe.data.image_size, asked.recipe.tag, asked.recipe.seed) == (64, "run", 0)
    assert OmegaConf.is_missing(asked.recipe.data, "category")  # it may miss what it does not say


def test_each_call_gives_a_config_of_its_own():
    first, second = composed(["model=nearest"]), composed(["model=nearest"])
    first.cfg.data.image_size = 7
    assert second.cfg.data.image_size == composed(["model=nearest"]).cfg.data.image_size == 64


# With Hydra


def test_alone_it_leaves_hydra_as_it_was():
    assert not GlobalHydra.instance().is_initialized()
    composed(["model=nearest"])
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.usefixtures("theirs")
def test_inside_another_application_it_composes_ours_and_theirs_goes_on():
    before = GlobalHydra.instance().hydra
    asked = composed(["model=nearest", "seed=4"])
    assert (asked.cfg.seed, asked.choices["model"]) == (4, "nearest")
    assert GlobalHydra.instance().hydra is before
    assert compose("config") == {"model": "their own"}


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("wrong", [["modle=nearest"], ["model=nowhere"], ["experiment=demo"], ["a"]])
def test_theirs_goes_on_after_an_error_of_ours(wrong):
    with pytest.raises(Exception, match=r"."):
        composed(wrong)
    assert compose("config") == {"model": "their own"}


@pytest.mark.usefixtures("theirs")
def test_what_theirs_asked_for_does_not_become_ours():
    HydraConfig.instance().set_config(compose("config", ["model=x"], return_hydra_config=True))
    try:
        assert composed(["model=nearest"]).overrides == ["model=nearest"]
        assert HydraConfig.get().overrides.task == ["model=x"]
    finally:
        HydraConfig.instance().cfg = None


def test_inside_and_outside_are_the_same(theirs):
    given = ["model=padim_small", "data=btad", "data.category='01'", "seed=1"]
    inside = composed(given)
    GlobalHydra.instance().clear()
    assert plain(composed(given)) == plain(inside)


# Sweeps


@pytest.mark.parametrize("given", ["experiment=demo", "hydra.mode=MULTIRUN"])
def test_a_sweep_is_refused(given):
    with pytest.raises(ConfigError) as caught:
        composed([given])
    said = "a sweep runs on the command line: python -m anomaly_lab experiment=NAME, or -m KEY=A,B"
    assert str(caught.value) == said


def test_an_experiment_that_is_told_to_be_one_run_is_one():
    asked = composed(["experiment=demo", "hydra.mode=RUN", "data=mvtec", "data.category=x"])
    sweep = OmegaConf.load(CONF.parent / "experiments" / "demo.yaml")
    assert not asked.sweeping
    assert asked.cfg.tag == sweep.get("tag", "run")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("seed=1,2", "cannot read seed=1,2; to give it as text: "),
        ("seed=range(1,3)", "Sweep parameters 'seed=range(1,3)' requires --multirun"),
        ("model=padmi", "model=padmi is no option; did you mean padim?"),
        ("modle=padim", "modle is no key; did you mean model?"),
        ("data.root=/a(b)", "cannot read data.root=/a(b); to give it as text: "),
    ],
)
def test_what_cannot_be_composed_is_one_line_of_ours(given, line):
    with pytest.raises(UserError) as caught:
        asked_from_python(["model=nearest", given], None)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


# Recipes of one's own


@pytest.mark.parametrize("name", ["mine", "it's, mine", "mi ne", "ä=[x]"])
def test_a_config_dir_is_searched_and_leaves_no_trace_in_the_overrides(name, tmp_path):
    asked = composed(["model=mine", "seed=2"], own(tmp_path / name))
    assert (asked.choices["model"], asked.cfg.trainer.max_epochs, asked.cfg.seed) == ("mine", 3, 2)
    assert asked.recipe.trainer.max_epochs == 3
    assert asked.overrides == ["model=mine", "seed=2"]


def test_a_config_dir_is_searched_for_this_call_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(own(tmp_path / "mine").parent)
    composed(["model=mine"], Path("mine"))
    with pytest.raises(Exception, match="mine"):
        composed(["model=mine"])


def test_two_recipes_of_one_name_are_not_taken_for_each_other(tmp_path):
    first, second = own(tmp_path / "a"), own(tmp_path / "b")
    (second / "model" / "mine.yaml").write_text(MINE.replace("3", "5"))
    epochs = [composed(["model=mine"], folder).recipe.trainer.max_epochs for folder in (first, second, first)]
    assert epochs == [3, 5, 3]


@pytest.mark.usefixtures("theirs")
def test_a_config_dir_is_searched_inside_another_application(tmp_path):
    assert composed(["model=mine"], own(tmp_path / "mine")).cfg.trainer.max_epochs == 3


def test_a_recipe_of_ones_own_with_a_shipped_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nearest\.yaml: there is a shipped option of this name"):
        composed(["model=nearest"], own(tmp_path, "nearest"))


def test_code_beside_an_own_recipe_is_found_here_and_in_child_processes(tmp_path):
    composed(["model=mine"], own(tmp_path / "mine"))
    assert sys.path[0] == str(tmp_path / "mine")
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'mine'}{os.pathsep}before"


def test_a_folder_comes_on_the_path_once_and_an_unset_variable_gains_no_empty_entry(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    for _ in range(2):
        on_path(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert os.environ["PYTHONPATH"] == str(tmp_path)  # an empty entry would be the working directory
