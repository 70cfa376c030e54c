"""What makes a run this one: its config and what it is made from, wherever that lies."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.errors import RunError
from anomaly_lab.report.columns import configurations
from anomaly_lab.report.run import Run
from anomaly_lab.report.tables import tables
from tests.runs.small_runs import control, manifest
from tests.support.runs import ran
from tests.support.trees import mvtec_tree, write_png


@pytest.fixture
def tree(tmp_path) -> Path:
    return mvtec_tree(tmp_path / "data", size=(64, 64))


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


def test_the_training_hash_is_of_recipe_seed_and_data(tree, tmp_path):
    paths = [
        ran(tmp_path / name, *control(tree), *changes)[1]
        for name, *changes in [
            ("a",),
            ("b", "tag=t", "evaluation.fpr_limit=0.1"),
            ("c", "seed=1"),
            ("d", "data.image_size=24"),
        ]
    ]
    write_png(tree / "part" / "train" / "good" / "extra.png", np.full((64, 64, 3), 7, np.uint8))
    found = [manifest(path)["training_hash"] for path in [*paths, ran(tmp_path / "e", *control(tree))[1]]]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_seeds_that_hold_out_other_images_are_of_the_same_content(tree, tmp_path):
    """Else no report would put them into one cell."""
    seeds = [ran(tmp_path, *control(tree), "data.holdout=0.4", f"seed={seed}")[1] for seed in (0, 1)]
    first, second = (manifest(path) for path in seeds)
    assert first["data_fingerprint"] != second["data_fingerprint"]
    assert first["data_content"] == second["data_content"]
    columns = configurations([Run.of(path) for path in seeds])
    (table, *_) = tables([Run.of(path) for path in seeds], ["image_auroc"])
    assert len(table.cells[("part", columns[seeds[0]])].by_seed) == 2
    write_png(tree / "part" / "train" / "good" / "extra.png", np.full((64, 64, 3), 7, np.uint8))
    other = manifest(ran(tmp_path, *control(tree), "data.holdout=0.4", "seed=2")[1])
    assert other["data_content"] != first["data_content"]
