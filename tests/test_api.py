"""The package from Python: `run` gives what the run directory has, `load` scores and trusts no stranger."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import anomaly_lab
from anomaly_lab.data.images import read_image
from anomaly_lab.errors import ConfigError, RunError
from tests.runs.small_runs import control, edit, manifest, tiny_draem
from tests.support.commands import ended
from tests.support.runs import CHECKOUT
from tests.support.trees import mvtec_tree

pytestmark = pytest.mark.long

STRANGER = """
from pathlib import Path

import torch

from anomaly_lab.data.sets.mvtec import MVTec
from anomaly_lab.methods.nearest import Nearest

Path(__file__).with_name("imported").touch()


class Own(Nearest):
    def __init__(self):
        super().__init__()
        self.one = torch.ones(1).item()  # which no method without memory can do


class OwnData(MVTec):
    pass
"""
RECIPE = """
# @package _global_
defaults: [override /synthesis: none]
model: {_target_: stranger.Own}
trainer: {max_epochs: 1}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), size=(64, 64))


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A folder with a recipe and code of its own, importable; it leaves a file when it is imported."""
    folder = tmp_path / "stranger's"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "own.yaml").write_text(RECIPE)
    (folder / "stranger.py").write_text(STRANGER)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield folder
    sys.modules.pop("stranger", None)


def finished(tree: Path, tmp_path: Path, *overrides: str, **arguments: object):
    return anomaly_lab.run([f"runs='{tmp_path}/runs'", *overrides], **arguments)


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def imported(folder: Path) -> bool:
    """Return whether the stranger was imported since this was asked last."""
    mark = folder / "imported"
    found = mark.exists() or "stranger" in sys.modules
    mark.unlink(missing_ok=True)
    sys.modules.pop("stranger", None)
    return found


# run


def test_run_gives_the_metrics_and_the_directory(tree, tmp_path):
    done = finished(tree, tmp_path, *control(tree), "seed=2", "tag=mine")
    assert done.metrics == json.loads((done.path / "metrics.json").read_text())
    assert done.path.parent == tmp_path / "runs" / "nearest" / "mvtec" / "part"
    assert done.path.name.startswith("mine-")
    assert manifest(done.path)["status"] == "done"
    assert (done.path / "overrides.txt").read_text().splitlines()[1:] == [
        *control(tree),
        "seed=2",
        "tag=mine",
    ]


def test_a_finished_run_is_not_done_again(tree, tmp_path):
    first = finished(tree, tmp_path, *control(tree))
    edit(first.path, marker="untouched")
    assert finished(tree, tmp_path, *control(tree)) == first
    assert manifest(first.path)["marker"] == "untouched"


def test_the_command_line_finds_the_run_that_python_made(tree, tmp_path):
    done = finished(tree, tmp_path, *control(tree))
    said = tmp_path / "said.txt"
    assert ended("anomaly_lab", f"runs={tmp_path}/runs", *control(tree), said=said) == 0
    assert said.read_text().startswith(f"{done.path}: finished before")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("experiment=demo", "a sweep runs on the command line: "),
        ("+cache.gigabyte=1", r"cache\.gigabyte is no key; did you mean gigabytes\?"),
        ("tag=a/b", "tag='a/b', seed=0: a tag has no slash"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_nothing_is_written(given, line, tree, tmp_path):
    with pytest.raises(ConfigError, match=f"^{line}"):
        finished(tree, tmp_path, *control(tree), given)
    assert not (tmp_path / "runs").exists()


def test_code_beside_ones_own_recipe_is_found_but_only_if_allowed(tree, tmp_path, stranger):
    given = ["model=own", *control(tree)[1:]]
    with pytest.raises(ConfigError, match=r"^model\._target_: .*give 'allow=\[stranger\]'$"):
        finished(tree, tmp_path, *given, config_dir=stranger)
    assert not imported(stranger)
    done = finished(tree, tmp_path, *given, "allow=[stranger]", config_dir=str(stranger))
    assert imported(stranger)
    assert done.path.parent == tmp_path / "runs" / "own" / "mvtec" / "part"
    assert done.metrics == finished(tree, tmp_path, *control(tree)).metrics


def test_a_config_dir_that_is_not_there_is_one_line(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"^config_dir: .*nowhere is no folder"):
        finished(tree, tmp_path, *control(tree), config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["torch.py", "json/__init__.py", "tests/__init__.py"])
def test_own_code_may_not_take_the_name_of_a_module_that_is_there(name, tree, tmp_path):
    file = tmp_path / "own" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(ConfigError, match=r"there is a module .* already"):
        finished(tree, tmp_path, *control(tree), config_dir=tmp_path / "own")
    assert str(tmp_path / "own") not in sys.path


def test_a_run_from_python_keeps_its_log(tree, tmp_path):
    done = finished(tree, tmp_path, *control(tree), "seed=5")
    lines = (done.path / "run.log").read_text()
    assert "fits from the start" in lines
    assert "done in" in lines
    assert "image_auroc" in lines


def test_a_loaded_method_does_not_train(tree, tmp_path):
    done = finished(tree, tmp_path, *tiny_draem(tree))
    assert not any(module.training for module in anomaly_lab.load(done.path).method.modules())


def test_importing_the_package_brings_no_library():
    script = "import sys, anomaly_lab; print({'torch', 'hydra', 'numpy', 'lightning'} & set(sys.modules))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout == "set()\n"


# load


@pytest.mark.parametrize("recipe", [control, tiny_draem])
def test_load_scores_arrays_as_the_run_did(recipe, tree, tmp_path):
    done = finished(tree, tmp_path, *recipe(tree), "evaluation.save_maps=true")
    found = rows(done.path)
    images = [read_image(Path(row["path"])) for row in found]
    prediction = anomaly_lab.load(done.path).predict(images)
    wanted = [float(row["score"]) for row in found]
    assert prediction.score.tolist() == pytest.approx(wanted, rel=1e-5)
    with np.load(done.path / "maps" / "maps.npz") as maps:
        kept = torch.from_numpy(np.stack([maps[name] for name in sorted(maps)]))
    torch.testing.assert_close(prediction.anomaly_map, kept, rtol=1e-4, atol=1e-6)


def test_load_reads_a_file_as_the_run_did(tree, tmp_path):
    camera = shutil.copytree(tree, tmp_path / "camera")
    for file in camera.glob("part/t*/*/*.png"):
        Image.fromarray(np.asarray(Image.open(file))[..., 0].astype(np.uint16) * 16).save(file)
    done = finished(tree, tmp_path, *control(camera))
    run = anomaly_lab.load(done.path)
    found = rows(done.path)
    prediction = run.predict([run.read(row["path"]) for row in found])
    wanted = [float(row["score"]) for row in found]
    assert prediction.score.tolist() == pytest.approx(wanted, rel=1e-5)


def test_load_has_the_threshold_of_the_run(tree, tmp_path):
    kept = finished(tree, tmp_path, *control(tree), "data.holdout=0.4")
    assert anomaly_lab.load(kept.path).threshold == kept.metrics["threshold"]
    assert anomaly_lab.load(finished(tree, tmp_path, *control(tree), "data.holdout=0").path).threshold is None


@pytest.mark.parametrize("status", ["missing", "running", "failed"])
def test_what_is_no_finished_run_is_one_line(status, tmp_path):
    if status != "missing":
        (tmp_path / "manifest.json").write_text(json.dumps({"status": status}))
    with pytest.raises(RunError) as caught:
        anomaly_lab.load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is no finished run (status {status}); give the folder of one"


# Strangers


@pytest.fixture
def handed(tree, tmp_path) -> Path:
    """A finished run, as somebody might hand it on."""
    return finished(tree, tmp_path, *control(tree)).path


def spoilt(path: Path, key: str, value: object) -> None:
    cfg = OmegaConf.load(path / "config.yaml")
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    cfg.allow = ["stranger"]  # what the folder says of itself counts for nothing
    OmegaConf.save(cfg, path / "config.yaml")


NODE = {"_target_": "stranger.Own"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(f"{group}._target_", "stranger.Own") for group in ("model", "data", "trainer", "logger", "cache")],
        *[("evaluation._target_", "stranger.Own"), ("data.augment", NODE), ("data.image_size", [NODE, 3])],
        *[("trainer.precision", NODE), ("more", NODE), ("model.more", {"deep": [{"er": NODE}]})],
    ],
)
def test_a_config_that_names_a_strangers_class_is_refused_and_nothing_imported(key, value, handed, stranger):
    spoilt(handed, key, value)
    with pytest.raises(RunError) as caught:
        anomaly_lab.load(handed)
    assert not imported(stranger)
    said = str(caught.value)
    assert said.startswith(f"{handed}: its config does not fit this version of anomaly_lab (")
    assert "\n" not in said
    if key.endswith("_target_"):
        assert f"{key}: stranger.Own is neither in anomaly_lab nor one of " in said
        assert "give 'allow=[stranger]'" in said


def test_what_made_the_pseudo_anomalies_is_not_needed_and_not_imported(handed, stranger):
    spoilt(handed, "synthesis", NODE)
    spoilt(handed, "data.synthesis", NODE)
    anomaly_lab.load(handed)
    assert not imported(stranger)


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.Popen", "torch.load"])
def test_the_standard_library_is_a_stranger_too(target, handed):
    spoilt(handed, "model", {"_target_": target})
    with pytest.raises(RunError, match=f"model._target_: {target} is neither in anomaly_lab nor"):
        anomaly_lab.load(handed)


@pytest.mark.parametrize(("key", "name"), [("model", "Own"), ("data", "OwnData")])
def test_a_strangers_class_is_taken_once_it_is_allowed(key, name, handed, stranger):
    images = [read_image(Path(row["path"])) for row in rows(handed)]
    wanted = anomaly_lab.load(handed).predict(images).score
    spoilt(handed, f"{key}._target_", f"stranger.{name}")
    for allow in ([], ["strange"], ["stranger.py"], ["another"]):
        with pytest.raises(RunError, match=r"give 'allow=\[stranger\]'"):
            anomaly_lab.load(handed, allow=allow)
        assert not imported(stranger)
    run = anomaly_lab.load(handed, allow=["another", "stranger"])
    assert imported(stranger)
    assert torch.equal(run.predict(images).score, wanted)
    assert (type(run.method).__module__ == "stranger") is (key == "model")


def test_a_config_that_reads_the_environment_is_refused(handed, monkeypatch):
    monkeypatch.setenv("ANOMALY_LAB_SECRET", "imagenet")
    cfg = OmegaConf.load(handed / "config.yaml")
    cfg.tag = "${oc.env:ANOMALY_LAB_SECRET}"
    OmegaConf.save(cfg, handed / "config.yaml")
    with pytest.raises(RunError, match=r"config\.yaml: has \$\{oc\.env:ANOMALY_LAB_SECRET\}, where"):
        anomaly_lab.load(handed)


def test_loading_never_lists_nor_draws_the_data_set(handed, tmp_path):
    spoilt(handed, "data._target_", "anomaly_lab.data.sets.demo.dataset.Demo")
    spoilt(handed, "data.root", str(tmp_path / "drawn"))
    spoilt(handed, "data.category", "nut")
    spoilt(handed, "data.crop", "auto")
    with pytest.raises(RunError, match=r"manifest\.json has no crop_box for data\.crop=auto"):
        anomaly_lab.load(handed)
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_box": [0, 0, 2, 2]}, "data.crop="),
        ({"crop_box": "all"}, ""),
        ({"training_hash": None}, "was trained with another recipe"),
        ({"training_hash": ["a"]}, ""),
        ({"status": "a\nb"}, "is no finished run (status a b)"),
        ({"git_commit": ["a\nb"], "crop_box": 1}, ""),
    ],
)
def test_a_manifest_with_strange_values_is_one_line(changes, said, handed):
    edit(handed, **changes)
    with pytest.raises(RunError) as caught:
        anomaly_lab.load(handed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_of_another_kind_is_one_line(tree, tmp_path):
    done = finished(tree, tmp_path, *control(tree), "data.register=true")
    np.savez(done.path / "reference.npz", image=np.zeros((4, 4)))
    with pytest.raises(RunError, match=r"reference\.npz: holds no \(h, w, 3\) uint8 photograph"):
        anomaly_lab.load(done.path)


def test_what_a_constructor_refuses_is_told_in_its_own_words(handed):
    for size in (-5, 2**40, [8193, 8192]):
        spoilt(handed, "data.image_size", size)
        with pytest.raises(
            RunError, match=r"fit this version of anomaly_lab \(data\.image_size: .* 2\^26 pixels"
        ):
            anomaly_lab.load(handed)


def test_a_config_and_weights_of_different_runs_are_one_line_when_they_score(handed):
    spoilt(handed, "data.image_size", 32)  # the weights hold images of 16 x 16
    images = [np.zeros((40, 40, 3), np.uint8)]
    with pytest.raises(
        RunError,
        match=rf"^{handed}: cannot score images of 32 x 32 pixels \(.+\); its config\.yaml and model\.ckpt",
    ):
        anomaly_lab.load(handed).predict(images)
    spoilt(handed, "data.image_size", 16)
    run = anomaly_lab.load(handed)
    assert run.predict(images).anomaly_map.shape == (1, 16, 16)
    for wrong, error in ((images[0].astype(float), ValueError), ([[1]], TypeError)):
        with pytest.raises(error, match="want"):
            run.predict([images[0], wrong])


@pytest.mark.parametrize(
    ("error", "images", "way_out"),
    [
        (MemoryError(), 2, "give predict a smaller batch_size, now 8"),
        (MemoryError(), 1, "its config.yaml and model.ckpt may be of different runs"),
        (RuntimeError("no space in /dev/shm"), 2, "its config.yaml and model.ckpt may be of different runs"),
    ],
)
def test_a_smaller_batch_is_offered_where_it_helps(handed, monkeypatch, error, images, way_out):
    run = anomaly_lab.load(handed)

    def full(*_):
        raise error

    monkeypatch.setattr(run.method, "forward", full)
    with pytest.raises(RunError, match=rf"{way_out}$") as caught:
        run.predict([np.zeros((16, 16, 3), np.uint8)] * images)
    assert caught.value.__cause__ is error
