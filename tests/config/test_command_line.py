"""What becomes of sys.argv before Hydra reads it: paths kept, words of others answered, own code found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from anomaly_lab.config.command_line import ELSEWHERE, keep_path, prepare
from anomaly_lab.config.composing import HELD, typed_words
from anomaly_lab.errors import ConfigError
from tests.support.runs import composed

NASTY = [
    *["a b", " a", "a ", "a,b", "[a]", "a]", "{a}", "{a", "(a)", "a'b", "'a'", 'a"b', '"a"', "a\\b", "a\\"],
    *["a\\'b", "a\\\\'", "a=b", "a:b", "ä", "日本", "a$b", "$a", "${a}", "\\${a}", "a\\\\${b}c", "#a", "!a"],
    *["%a", "a&b;c", "a*?", "~a", "+a", "-a", "a|b>c", "`a`", "^a", "a\tb", "null.", "@a", "a\nb"],
    *["range(1,3)", "x,y,[z]", "choice(a)", "a/b,c/d e"],
]


@pytest.fixture(autouse=True)
def _kept_process(monkeypatch):
    """Let nothing of this process outlast a test: its arguments, its import path, what Hydra has stored."""
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONPATH", "before")
    stored = {group: node for group, node in ConfigStore.instance().repo.items() if group != "experiment"}
    monkeypatch.setattr(ConfigStore.instance(), "repo", stored)


def prepared(*arguments: str, verb: str = "") -> list[str]:
    sys.argv = ["anomaly_lab", *arguments]
    prepare(verb)
    return typed_words()


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Paths


@pytest.mark.parametrize("name", NASTY)
def test_the_path_of_an_existing_folder_arrives_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / name)):
        Path(path).mkdir(parents=True, exist_ok=True)
        override = OverridesParser.create().parse_override(keep_path(f"data.root={path}"))
        in_a_sweep = f"data.root={override.get_value_element_as_str()}"  # as its job reads it again
        again = OverridesParser.create().parse_override(in_a_sweep)
        for value in (override.value(), again.value()):
            assert OmegaConf.to_container(OmegaConf.create({"root": value}), resolve=True) == {"root": path}


@pytest.mark.parametrize(
    "argument", ["seed=1", "trainer.step_limit=null", "data=demo", "data.size=0.5", "seed=", "--help"]
)
def test_a_file_that_happens_to_have_a_values_name_changes_nothing(tmp_path, monkeypatch, argument):
    monkeypatch.chdir(tmp_path)
    for name in ("1", "null", "demo", "0.5", "--help"):
        (tmp_path / name).touch()
    assert keep_path(argument) == argument


def test_the_tilde_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "a,b").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keep_path("data.root=~/a,b") == f"data.root='{tmp_path}/a,b'"
    assert keep_path("data.root=~/nothing") == "data.root=~/nothing"


def test_paths_are_kept_on_the_way_to_hydra_and_all_else_as_it_is(tmp_path):
    (tmp_path / "a,b").mkdir()
    given = ["-m", "seed=1,2", "data.crop=[0,0.5,1,1]", "~logger", "+x=y"]
    assert prepared(*given, f"data.root={tmp_path}/a,b") == [*given, f"data.root='{tmp_path}/a,b'"]


# Words


@pytest.mark.parametrize("word", ELSEWHERE)
@pytest.mark.parametrize("spelling", ["{}=x", "+{}=x", "++{}=x", "~{}", "{}.below=x", "{}=1,2"])
def test_a_word_of_other_projects_is_answered_by_one_line_that_names_it(word, spelling):
    assert refused("model=draem_small", spelling.format(word)) == f"{word} {ELSEWHERE[word]}"


@pytest.mark.parametrize("word", ELSEWHERE)
def test_a_word_of_other_projects_is_no_key_of_ours(word):
    for model in ("draem_small", "patchcore_small"):
        assert OmegaConf.select(composed(f"model={model}"), word) is None


def test_what_merely_begins_like_such_a_word_passes():
    given = ["data.data_directory=x", "tester=x", "trainer=debug", "tests.x=1", "model.optimizer.lr=1"]
    assert prepared(*given) == given


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--modle", "--modle is no option; keys are set by key=value"),
        ("experiment=demo,controls", "experiment: each is a sweep of its own; give one at a time"),
        ("+experiments=demo,controls", "experiment: each is a sweep of its own; give one at a time"),
    ],
)
def test_what_cannot_be_meant_is_one_line(argument, line):
    assert refused(argument) == line


def test_keys_and_options_stand_in_any_order(tmp_path):
    folder = ["--config-dir", str(tmp_path)]
    wanted = ["-m", *folder, "seed=1,2", "tag=a"]
    assert prepared(*wanted) == wanted
    assert prepared("seed=1,2", "-m", "tag=a", *folder) == wanted
    assert prepared("seed=1,2", "-m", *folder, "tag=a") == wanted


def test_only_the_cells_of_a_sweep_know_the_keys_of_their_options():
    given = [
        "-m",
        "model=hit_milf_small,hit_milf",
        "data.augment.depth=1",
        "runs=x",
        "hydra.job.num=2",
    ]
    assert prepared(*given) == ["-m", "runs=x", "hydra.job.num=2", *given[1:3]]
    assert [*given[1:3]] == HELD
    assert prepared(*given[1:], verb="check") == [*given[1:], "hydra/sweeper=each"]
    assert prepared("-m", "hydra/sweeper=basic", "seed=1") == ["-m", "hydra/sweeper=basic", "seed=1"]
    assert HELD == []


def test_the_config_of_an_experiment_is_that_of_its_first_cell():
    given = prepared("experiment=hit_levels_small", "data=demo", "--cfg", "job")
    assert given[:5] == ["--cfg", "job", "experiment=hit_levels_small", "data=demo", "hydra.mode=MULTIRUN"]
    assert "model=hit_milf_small" in given
    assert not [word for word in given[5:] if "," in word.replace("[blocks", "") or word.startswith("data=")]


@pytest.mark.parametrize("key", ["experiment", "experiments", "+experiment", "+experiments"])
def test_an_experiment_may_be_spelt_in_any_way(key):
    assert prepared(f"{key}=demo", "seed=3") == ["experiment=demo", "hydra.mode=MULTIRUN", "seed=3"]
    assert "demo.yaml" in ConfigStore.instance().repo["experiment"]


def test_the_switch_of_a_verb_is_its_key_and_no_other_verbs():
    assert prepared("runs=a", "--rescore", verb="report")[:2] == ["runs=a", "+report.rescore=true"]
    with pytest.raises(ConfigError, match=r"^--rescore is no option"):
        prepared("--rescore", verb="check")


def test_the_keys_of_a_verb_are_new_ones_to_hydra_with_that_verb_only():
    given = ["gallery.count=3", "gallery=x", "galleries.count=3", "data.category=nut"]
    assert prepared(*given, verb="gallery") == ["+gallery.count=3", *given[1:], "hydra/sweeper=each"]
    assert prepared(*given, verb="check") == [*given, "hydra/sweeper=each"]
    assert prepared(*given) == given


# Own code


@pytest.mark.parametrize("option", [["--config-dir"], ["-cd"]])
def test_a_config_dir_is_on_the_import_path_here_and_in_child_processes(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine, and more"
    folder.mkdir()
    (folder / "code_of_my_own.py").write_text("print('found')\n")
    prepared(*option, folder.name, "model=draem_small")
    assert sys.path[0] == str(folder)
    assert os.environ["PYTHONPATH"] == f"{folder}{os.pathsep}before"
    command = [sys.executable, "-c", "import code_of_my_own"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "found\n"


def test_without_a_config_dir_the_import_path_stays_as_it_is():
    before = sys.path[:]
    prepared("model=draem_small")
    assert (sys.path, os.environ["PYTHONPATH"]) == (before, "before")


@pytest.mark.parametrize(
    "name",
    [
        *("model/nearest.yaml", "data/mvtec.yaml", "logger/csv.yaml"),
        "experiment/demo.yaml",
    ],
)
def test_an_own_recipe_with_a_shipped_name_is_refused_and_not_imported_from(name, tmp_path):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    said = refused("--config-dir", str(tmp_path), "seed=1")
    assert said == f"{tmp_path / name}: there is a shipped option of this name; rename the file"
    assert str(tmp_path) not in sys.path
