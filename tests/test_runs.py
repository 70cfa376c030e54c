"""The run directory: one config, one folder; what each state found leads to; what bad input leaves behind."""

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import anomaly_lab
from anomaly_lab.errors import ConfigError, DataError, RunError
from anomaly_lab.methods.draem import Draem
from anomaly_lab.results import RunDirectory
from tests.runs import composed, on_tree, ran
from tests.trees import mvtec_tree, write_png


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


def control(tree: Path) -> list[str]:
    return ["model=nearest", *on_tree(tree), "data.image_size=16", "evaluation.overlays=0", "evaluation.bootstrap=10"]


def tiny_draem(tree: Path) -> list[str]:
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=3", "data.holdout=0", "trainer.max_steps=4"]
    return [*small, *on_tree(tree), "evaluation.overlays=0", "evaluation.bootstrap=10", "trainer.save_minutes=0"]


def manifest(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


def edit(path: Path, **changes: object) -> None:
    (path / "manifest.json").write_text(json.dumps({**manifest(path), **changes}))


def test_a_finished_run_is_skipped_and_gives_its_metrics(tree, tmp_path):
    metrics, path = ran(tmp_path, *control(tree))
    assert manifest(path)["status"] == "done"
    edit(path, marker="untouched")
    again, same = ran(tmp_path, *control(tree))
    assert (again, same) == (metrics, path)
    assert manifest(path)["marker"] == "untouched"


def test_the_manifest_tells_where_the_numbers_come_from(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree), "seed=3", "tag=mine")
    found = manifest(path)
    assert path.name.startswith("mine-")
    assert path.name.endswith("-seed3")
    assert path.parent == tmp_path / "runs" / "nearest" / "mvtec" / "part"
    assert found["choices"] == {
        "model": "nearest",
        "data": "mvtec",
        "synthesis": "none",
        "trainer": "default",
        "logger": "csv",
    }
    assert found["config_hash"].startswith(path.name.split("-")[1])
    assert found["counts"] == {"train": 6, "normal": 0, "test": 6, "anomalous": 3, "unmasked": 0}
    assert found["differs"]["data.image_size"] == 16
    assert {"command", "git_commit", "git_dirty", "versions", "hardware", "data_fingerprint", "seconds"} <= found.keys()


def test_another_config_is_another_folder_and_other_data_are_an_error(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree))
    _, other = ran(tmp_path, *control(tree), "data.image_size=24")
    assert other != path
    write_png(tree / "part" / "train" / "good" / "extra.png", np.full((64, 64, 3), 7, np.uint8))
    with pytest.raises(RunError, match="data_fingerprint changed"):
        ran(tmp_path, *control(tree))


def test_the_same_images_elsewhere_are_the_same_data(tree, tmp_path):
    _, path = ran(tmp_path, *control(tree))
    shutil.copytree(tree, tmp_path / "moved")
    assert ran(tmp_path, *control(tmp_path / "moved"))[1] == path


def test_a_failed_run_runs_again_but_in_a_sweep_only_when_asked(tree, tmp_path, monkeypatch):
    _, path = ran(tmp_path, *control(tree))
    edit(path, status="failed", error="RunError: tired")
    monkeypatch.setattr("tests.runs.MODE", "MULTIRUN")
    with pytest.raises(RunError, match=r"failed before \(RunError: tired\); skipped, give retry=failed"):
        ran(tmp_path, *control(tree))
    ran(tmp_path, *control(tree), "retry=failed")
    assert manifest(path)["status"] == "done"
    edit(path, status="failed", error="RunError: tired")
    monkeypatch.undo()
    ran(tmp_path, *control(tree))
    assert manifest(path)["status"] == "done"


def test_a_broken_off_run_does_not_go_on_with_other_images(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    edit(path, status="running")
    write_png(tree / "part" / "train" / "good" / "extra.png", np.full((64, 64, 3), 7, np.uint8))
    with pytest.raises(RunError, match="another recipe or on other data"):
        ran(tmp_path, *tiny_draem(tree))
    ran(tmp_path, *tiny_draem(tree), "resume=false")
    assert manifest(path)["counts"]["train"] == 7


def test_resume_false_starts_afresh(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    first = torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
    edit(path, status="running")
    spoiled = torch.load(path / "model.ckpt", weights_only=True)
    spoiled["state_dict"] = {key: value * 0 for key, value in first.items()}
    torch.save(spoiled, path / "model.ckpt")
    ran(tmp_path, *tiny_draem(tree), "resume=false")
    again = torch.load(path / "model.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[key], again[key]) for key in first)


def hold(path: Path, held, done) -> None:
    with RunDirectory(path).lock() as got:
        held.put(got)
        done.wait(30)


def test_a_living_holder_makes_a_run_busy_and_a_dead_one_does_not(tmp_path):
    context = multiprocessing.get_context("fork")
    held, done = context.Queue(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, done))
    process.start()
    assert held.get(timeout=30)
    with RunDirectory(tmp_path).lock() as got:
        assert not got
    process.kill()
    process.join()
    with RunDirectory(tmp_path).lock() as got:
        assert got
    with RunDirectory(tmp_path).lock() as got:
        assert got


def test_a_fresh_heartbeat_of_another_host_makes_a_run_busy(tmp_path):
    import os

    (tmp_path / ".lock").write_text("otherhost 4711")
    with RunDirectory(tmp_path).lock() as got:
        assert not got
    os.utime(tmp_path / ".lock", (1, 1))
    with RunDirectory(tmp_path).lock() as got:
        assert got


def test_keys_of_evaluation_take_the_trained_weights(tree, tmp_path):
    _, first = ran(tmp_path, *tiny_draem(tree))
    _, second = ran(tmp_path, *tiny_draem(tree), "model.scorer.kernel_size=3", "evaluation.fpr_limit=0.1")
    assert second != first
    assert manifest(second)["trained_in"] == first.name
    assert not (second / "training.csv").exists()
    a, b = (torch.load(p / "model.ckpt", weights_only=True)["state_dict"] for p in (first, second))
    assert all(torch.equal(a[k], b[k]) for k in a)
    _, third = ran(tmp_path, *tiny_draem(tree), "model.learning_rate=1e-3")
    assert "trained_in" not in manifest(third)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tree, tmp_path, monkeypatch):
    step = Draem.training_step

    def spoiled(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (float("nan") if self.global_step == 3 else 1.0)

    monkeypatch.setattr(Draem, "training_step", spoiled)
    with pytest.raises(RunError, match="the loss is nan at step 4"):
        ran(tmp_path, *tiny_draem(tree))
    path = next((tmp_path / "runs").glob("*/*/*/*"))
    assert manifest(path)["status"] == "failed"
    assert "the loss is nan" in manifest(path)["error"]
    saved = torch.load(path / "resume.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(v.isfinite().all() for v in saved["state_dict"].values())
    monkeypatch.undo()
    assert manifest(ran(tmp_path, *tiny_draem(tree))[1])["status"] == "done"


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_named(tree, tmp_path):
    _, first = ran(tmp_path, *tiny_draem(tree))
    _, other = ran(tmp_path, *tiny_draem(tree), "model.learning_rate=1e-3")
    shutil.copy(other / "model.ckpt", first / "model.ckpt")
    with pytest.raises(RunError, match=r"model\.ckpt: was trained with another recipe"):
        anomaly_lab.load(first)
    (first / "model.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"model\.ckpt: is no readable checkpoint"):
        anomaly_lab.load(first)


def test_a_full_disk_gives_one_line_and_keeps_the_last_good_file(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path)
    directory.write("metrics.json", "{}")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"metrics\.json: cannot be written \(No space left on device\)"):
        directory.write("metrics.json", "half")
    assert (tmp_path / "metrics.json").read_text() == "{}"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def spoil(file: str, content: bytes | np.ndarray | None):
    """Return what replaces, adds or (None) removes a file of the category."""

    def change(root: Path) -> None:
        path = root / "part" / file
        if content is None:
            path.unlink() if path.is_file() else shutil.rmtree(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_png(path, content)

    return change


def empty_training(root: Path) -> None:
    for file in (root / "part" / "train" / "good").iterdir():
        file.unlink()


BLANK = np.zeros((64, 64), np.uint8)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (spoil("", None), "no such folder"),
        (empty_training, "no training images"),
        (spoil("train/good/000.png", b"junk"), r"train/good/000\.png"),
        (spoil("test/good/000.png", b"\x89PNG\r\n\x1a\n"), r"test/good/000\.png"),
        (spoil("ground_truth/scratch/000_mask.png", BLANK[:3, :3]), r"000_mask\.png.*its image"),
        (spoil("ground_truth/scratch/zz_mask.png", BLANK), r"zz_mask\.png: is a mask of 0 images"),
    ],
)
def test_bad_data_end_in_one_line_and_nothing_written(spoil, line, tree, tmp_path):
    spoil(tree)
    with pytest.raises(DataError, match=line) as caught:
        ran(tmp_path, *control(tree))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_missing_mask_drops_the_pixel_metrics_or_is_an_error(tree, tmp_path, caplog):
    (tree / "part" / "ground_truth" / "scratch" / "001_mask.png").unlink()
    metrics, _ = ran(tmp_path, *control(tree))
    assert not [name for name in metrics if name.startswith("pixel")]
    assert "1 anomalous test images have no mask" in caplog.text
    with pytest.raises(DataError, match=r"001\.png: has no mask \(1 such"):
        ran(tmp_path, *control(tree), "data.masks=required")


def test_a_gpu_that_is_not_there_is_one_line(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.device: cuda is not available"):
        ran(tmp_path, *control(tree), "trainer=gpu_bf16")
    assert not (tmp_path / "runs").exists()


def test_the_original_resolution_is_a_switch(tree, tmp_path):
    network, _ = ran(tmp_path, *control(tree))
    original, _ = ran(tmp_path, *control(tree), "evaluation.resolution=original")
    assert original["image_auroc"] == network["image_auroc"]
    assert original["pixel_auroc"] != network["pixel_auroc"]
    assert original["pixel_aupro"] > 0.5


def test_pixel_metrics_are_sorted_exactly_where_the_histogram_is_too_coarse(tree, tmp_path, monkeypatch, caplog):
    from anomaly_lab.callbacks import evaluation

    small, _ = ran(tmp_path, *control(tree))
    assert "scored again" not in caplog.text
    monkeypatch.setattr(evaluation, "FEW_PIXELS", 0)
    monkeypatch.setattr(evaluation, "TOLERANCE", 1.0)
    streamed, _ = ran(tmp_path / "streamed", *control(tree))
    assert "scored again" not in caplog.text
    monkeypatch.setattr(evaluation, "TOLERANCE", -1.0)
    exact, _ = ran(tmp_path / "exact", *control(tree))
    assert "scored again and sorted exactly" in caplog.text
    assert exact == small
    assert streamed.keys() == small.keys()
    for name, value in small.items():
        assert streamed[name] == pytest.approx(value, abs=1e-4), name


def test_training_writes_one_row_a_step(tree, tmp_path):
    _, path = ran(tmp_path, *tiny_draem(tree))
    rows = (path / "training.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss,learning_rate,images_per_second,loader_seconds"
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_composing_twice_gives_the_same_folder(tree):
    from anomaly_lab import config

    assert config.hashes(composed(*control(tree))) == config.hashes(composed(*control(tree)))


@pytest.mark.parametrize(
    "override",
    [
        *("logger=wandb", "trainer.device=cpu", "trainer.save_minutes=1", "data.workers=3", "data.memory_gb=1"),
        *("data.root=elsewhere", "resume=false", "retry=failed", "tag=t", "runs=r", "seed=4"),
        "synthesis.textures_gb=9",
    ],
)
def test_keys_that_change_no_result_change_no_hash(override):
    from anomaly_lab import config

    base = ("model=draem_small", "data=mvtec", "data.category=part")
    assert config.hashes(composed(*base, override)) == config.hashes(composed(*base))
    assert override.split("=")[0] in config.IGNORED
