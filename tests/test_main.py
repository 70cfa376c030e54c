"""The command line in this process, on a small conf tree, with a stand-in for `anomaly_lab.train`."""

import ast
import importlib.metadata
import logging
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from anomaly_lab import __main__ as cli
from anomaly_lab.config import own_code
from anomaly_lab.config.composing import Composition
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.verbs import VERBS

CHECKOUT = Path(__file__).parent.parent
CONF = {
    "conf/data/demo.yaml": "{_target_: x.Demo, root: datasets, category: nut, size: 64}",
    "conf/data/mvtec.yaml": "{_target_: x.MVTec, root: datasets, category: ???, size: 64}",
    "conf/synthesis/none.yaml": "{_target_: x.No}",
    "conf/synthesis/perlin.yaml": "{_target_: x.Perlin, probability: 0.5}",
    "conf/logger/csv.yaml": "{_target_: x.Csv}",
    "conf/model/draem_small.yaml": "# @package _global_\ndefaults: [override /synthesis: perlin]\n"
    "model: {_target_: x.Draem, lr: 0.1}\ndata: {size: 128}\n"
    "trainer: {max_epochs: 7}\nevaluation: {overlays: 3}\n",
    "conf/model/nearest.yaml": "# @package _global_\nmodel: {_target_: x.Nearest}\ntrainer: {max_epochs: 1}",
    "conf/model/broken.yaml": "# @package _global_\nmodel: {_target_: x.B\n  x: 3\n",
    "experiments/table.yaml": "tag: table\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {model: 'nearest,draem_small', seed: '1,2'}}}",
}

EACH = "hydra/sweeper=each"  # the small parts are of no class, so a grid would refuse them


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with the real frame and trainers and small parts, and beside it a working directory."""
    root = tmp_path / "checkout, with [nasty] name"
    for group in ("trainer", "hydra"):
        shutil.copytree(CHECKOUT / "conf" / group, root / "conf" / group)
    shutil.copy(CHECKOUT / "conf" / "config.yaml", root / "conf")
    for name, text in CONF.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(own_code, "ROOT", root)
    stored = {group: node for group, node in ConfigStore.instance().repo.items() if group != "experiment"}
    monkeypatch.setattr(ConfigStore.instance(), "repo", stored)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    kept = logging.root.handlers[:], logging.root.level
    yield root
    logging.root.handlers[:] = kept[0]
    logging.root.setLevel(kept[1])


@pytest.fixture
def runs(monkeypatch):
    """What reaches `run`: the configs; an exception in ``runs.raises`` is raised by the run of that seed."""

    class Runs(list[DictConfig]):
        def __init__(self):
            super().__init__()
            self.asked: list[Composition] = []
            self.raises: dict[int, BaseException] = {}

    seen = Runs()

    def run(asked: Composition) -> SimpleNamespace:
        seen.asked.append(asked)
        seen.append(asked.cfg)
        if asked.cfg.seed in seen.raises:
            raise seen.raises[asked.cfg.seed]
        return SimpleNamespace(metrics={"image_auroc": 1.0}, doubts=())

    module = ModuleType("anomaly_lab.train")
    vars(module)["run"] = run
    monkeypatch.setitem(sys.modules, "anomaly_lab.train", module)
    return seen


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["anomaly_lab", *arguments])
    return cli.main()


@pytest.fixture
def main(root, runs, monkeypatch):
    return lambda *arguments: call(monkeypatch, *arguments)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_gets_the_composed_config_and_hydra_writes_nothing(main, runs, tmp_path):
    assert main() == 0
    (cfg,) = runs
    assert "hydra" not in cfg
    assert (cfg.model.lr, cfg.data.size, cfg.trainer.max_epochs, cfg.evaluation.overlays) == (0.1, 128, 7, 3)
    assert OmegaConf.to_container(cfg.data, resolve=True)["synthesis"] == {
        "_target_": "x.Perlin",
        "probability": 0.5,
    }
    assert files(tmp_path / "work") == []


def test_the_command_line_wins_over_the_recipe_and_debug_over_none(main, runs):
    assert (
        main(
            "data.size=32", "synthesis=none", "trainer=debug", "evaluation.overlays=0", "trainer.max_steps=5"
        )
        == 0
    )
    (cfg,) = runs
    assert (cfg.data.size, cfg.evaluation.overlays, cfg.synthesis._target_) == (32, 0, "x.No")
    assert (cfg.trainer.max_epochs, cfg.trainer.step_limit, cfg.trainer.max_steps) == (7, 2, 5)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("model=dream_small", "model=dream_small is no option; did you mean draem_small?"),
        ("data=x", "data=x is no option; there are: demo, mvtec"),
        ("modle=nearest", "modle is no key; did you mean model?"),
        ("model.lrr=1", "model.lrr is no key; did you mean lr?"),
        ("evaluation.fpr_limt=1", "evaluation.fpr_limt is no key; did you mean fpr_limit?"),
        ("seed.x=1", "seed.x is no key; seed has none"),
        *[
            (f"{key}=tabel", "experiment=tabel is no option; did you mean table?")
            for key in ("experiment", "experiments", "+experiments")
        ],
        ("experiment=table,table", "experiment: each is a sweep of its own; give one at a time"),
        (
            "trainer.accelerator=gpu",
            "trainer.accelerator is called trainer.device here: auto, cpu, cuda or mps",
        ),
        (
            "+model.lr=1",
            "Could not append to config. An item is already at 'model.lr'. Either remove + prefix: ",
        ),
        ("~model.lrr", "Could not delete from config. 'model.lrr' does not exist."),
        ("data.root=/a(b)", "cannot read data.root=/a(b); to give it as text: \"data.root='/a(b)'\"; "),
        ("data.root=a=b", "cannot read data.root=a=b; to give it as text: \"data.root='a=b'\"; "),
        (
            "data.root=a,b",
            "cannot read data.root=a,b; to give it as text: \"data.root='a,b'\"; to sweep over values put -m",
        ),
        (
            "data.root=it's",
            "cannot read data.root=it's; to give it as text: 'data.root='\"'\"'it\\'\"'\"'s'\"'\"'';",
        ),
        ("seed=range(1,3)", "Sweep parameters 'seed=range(1,3)' requires --multirun"),
        ("model=broken", "while parsing a flow mapping in "),
        ("logger=null", "Config group override must be a string or a list. Got NoneType (in: logger=null)"),
        ("--model nearest", "--model is no option; keys are set by key=value"),
        ("--cfg jobs", "argument --cfg/-c: invalid choice: 'jobs'"),
        (
            "--resolve",
            "The --resolve flag can only be used in conjunction with --cfg or --help (in: --resolve)",
        ),
        ("--config-name nope", "Cannot find primary config 'nope'."),
        ("--config-dir nope", "Additional config directory "),
        ("-m model=nearest,dream_small", "model=dream_small is no option; did you mean draem_small?"),
        ("-m seed=1,2 model.lrr=1,2", "model.lrr is no key; did you mean lr?"),
    ],
)
def test_what_cannot_be_composed_is_one_line_and_nothing_runs(main, runs, capsys, arguments, line):
    assert main(*arguments.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"anomaly_lab: error: {line}")
    assert said.count("\n") == 1
    assert runs == []


def test_the_broken_yaml_is_named_with_its_line(main, root, capsys):
    main("model=broken")
    assert f'"{root}/conf/model/broken.yaml", line 3' in capsys.readouterr().err


def wrapped(error: Exception) -> Exception:
    outer = InstantiationException("Error in call to target 'x.Draem':\nConfigError(...)")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped], ids=["bare", "wrapped by instantiate"])
def test_a_users_error_in_a_run_is_one_line(main, runs, capsys, wrap):
    runs.raises[0] = wrap(DataError("a.png: no such file; give data.root=FOLDER"))
    assert main() == 1
    assert capsys.readouterr().err == "anomaly_lab: error: a.png: no such file; give data.root=FOLDER\n"


def test_a_workers_error_is_one_line(main, runs, capsys):
    runs.raises[0] = DataError(
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback:\nDataError: a.png: bad\n"
    )
    assert main() == 1
    assert capsys.readouterr().err == "anomaly_lab: error: DataError: a.png: bad\n"


def test_a_bug_shows_its_traceback(main, runs, capsys):
    runs.raises[0] = wrapped(ZeroDivisionError("a bug"))
    assert main() == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: a bug" in said


@pytest.mark.parametrize("argument", ["model=dream", "seed=0"])
def test_who_asks_for_the_full_error_gets_the_traceback(main, runs, capsys, monkeypatch, argument):
    monkeypatch.setattr(cli, "TRACEBACKS", True)
    runs.raises[0] = ConfigError("wrong")
    assert main(argument) == 1
    assert "Traceback" in capsys.readouterr().err


def exit_like_lightning() -> SystemExit:
    end = SystemExit(1)
    end.__context__ = KeyboardInterrupt()
    return end


def test_ones_own_recipe_is_found_and_one_with_a_shipped_name_refused(main, runs, tmp_path, capsys):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    mine = tmp_path / "mine" / "model" / "mine.yaml"
    mine.write_text("# @package _global_\nmodel: {_target_: x.Mine}\ntrainer: {max_epochs: 1}\n")
    assert main("--config-dir", str(tmp_path / "mine"), "model=mine") == 0
    assert runs[0].model._target_ == "x.Mine"
    mine.rename(mine.with_name("nearest.yaml"))
    assert main("--config-dir", str(tmp_path / "mine"), "model=nearest") == 1
    assert (
        f"{mine.with_name('nearest.yaml')}: there is a shipped option of this name" in capsys.readouterr().err
    )


def test_a_nasty_path_reaches_the_run_and_is_no_sweep(main, runs, tmp_path):
    root = tmp_path / "photos of 'Ä', [new] {b} a=1, x\\"
    root.mkdir()
    assert main(f"data.root={root}") == 0
    assert main("-m", EACH, f"data.root={root}", "seed=1,2") == 0
    assert [(cfg.data.root, cfg.seed) for cfg in runs] == [(str(root), 0), (str(root), 1), (str(root), 2)]


def test_the_folder_of_the_runs_may_have_a_nasty_name(main, runs, tmp_path):
    folder = tmp_path / "runs, [all]"
    folder.mkdir()
    assert main("-m", EACH, f"runs={folder}", "seed=1") == 0
    assert [path.name for path in folder.iterdir()] == [".sweeps"]
    assert runs[0].runs == str(folder)


def test_the_config_can_be_shown(main, runs, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main("--help")
    assert "synthesis: none, perlin\n" in capsys.readouterr().out
    assert main("--cfg", "job", "--resolve", "seed=3") == 0
    assert OmegaConf.create(capsys.readouterr().out).seed == 3
    assert runs == []


def test_a_run_is_told_what_was_asked_for(main, runs):
    assert main("model=nearest", "data.size=32", "tag=t") == 0
    assert main("-m", EACH, "seed=1,2", "model=nearest") == 0
    alone, first, second = runs.asked
    options = {"data": "demo", "synthesis": "none", "trainer": "default", "logger": "csv"}
    assert alone.choices == {"model": "nearest", **options}
    assert alone.overrides == ["model=nearest", "data.size=32", "tag=t"]
    assert (alone.recipe.data.size, alone.recipe.tag, alone.cfg.data.size) == (64, "run", 32)
    assert [one.sweeping for one in runs.asked] == [False, True, True]
    assert [one.overrides for one in (first, second)] == [[f"seed={k}", "model=nearest"] for k in (1, 2)]
    assert (alone.typed, first.typed) == (alone.overrides, ["-m", EACH, "seed=1,2", "model=nearest"])


# Verbs


@pytest.fixture
def verb(monkeypatch):
    """A stand-in for `check` and `gallery`: what reaches their ``work``."""
    seen: list[Composition] = []
    for name in VERBS:
        module = ModuleType(f"anomaly_lab.verbs.{name}", f"How {name} is used.")
        vars(module)["work"] = seen.append
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_gets_the_composed_config_and_nothing_runs(main, runs, verb, name, capsys):
    assert main(name, "model=nearest", "data.size=3", f"{name}.count=3", f"{name}.file=a b") == 0
    (asked,) = verb
    assert (asked.cfg.model._target_, asked.cfg.data.size) == ("x.Nearest", 3)
    assert asked.cfg[name] == {"count": 3, "file": "a b"}  # its own keys are new to the config
    assert asked.choices["model"] == "nearest"
    assert (runs, capsys.readouterr().out) == ([], "")


def test_the_keys_of_a_verb_belong_to_it_alone(main, runs, verb, capsys):
    for words in ([], ["check"]):
        assert main(*words, "gallery.count=3") == 1
        assert capsys.readouterr().err.startswith("anomaly_lab: error: gallery is no key; ")
    assert (runs, verb) == ([], [])


def test_a_verb_may_sweep_and_shows_no_table(main, verb, capsys):
    assert main("check", "-m", "data.category=nut,chip") == 0
    assert [asked.cfg.data.category for asked in verb] == ["nut", "chip"]
    assert "image_auroc" not in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["model=nearest", "--help"]])
def test_help_of_a_verb_is_its_docstring(main, verb, name, arguments, capsys):
    assert main(name, *arguments) == 0
    said = ast.get_docstring(ast.parse((CHECKOUT / "anomaly_lab" / "verbs" / f"{name}.py").read_text()))
    assert capsys.readouterr().out == f"{said}\n"
    assert f"python -m anomaly_lab {name} " in said
    assert verb == []


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("chekc", "chekc is no verb, and keys are set by key=value, without spaces; did you mean check?"),
        (
            "train",
            f"train is no verb, and keys are set by key=value, without spaces; there are: {', '.join(VERBS)}",
        ),
    ],
)
def test_a_first_word_that_is_no_verb_is_one_line(main, runs, verb, capsys, word, line):
    assert main(word, "model=nearest") == 1
    assert capsys.readouterr().err == f"anomaly_lab: error: {line}\n"
    assert (runs, verb) == ([], [])


def test_two_verbs_are_not_said_to_be_none(main, verb, capsys):
    assert main("check", "gallery") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "gallery is no verb" not in said


@pytest.mark.parametrize("words", [[], ["check"]])
def test_the_version_is_that_of_the_installed_package(main, runs, words, capsys):
    assert main(*words, "--version") == 0
    assert capsys.readouterr().out == f"anomaly_lab {importlib.metadata.version('anomaly_lab')}\n"
    assert runs == []
