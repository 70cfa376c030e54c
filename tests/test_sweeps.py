"""The table at the end of a sweep, and what a run says of where its weights come from."""

import csv
import logging

import pytest

from anomaly_lab.sweeps import table
from tests.runs import on_tree, ran
from tests.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree, model: str) -> list[str]:
    return [f"model={model}", *on_tree(tree), "data.image_size=64", "data.batch_size=2", "evaluation.overlays=2"]


def test_the_table_shows_what_differs_and_a_dash_for_what_failed():
    cells = [
        (["model=draem", "seed=0", "data=demo"], {"image_auroc": 0.5, "pixel_ap": 0.25, "threshold": 3.0}),
        (["model=nearest", "seed=1", "data=demo"], {"image_auroc": 0.75}),
        (["model=nearest", "seed=2", "data=demo"], {}),
    ]
    assert table(cells).splitlines()[1:] == [
        "model    seed  image_auroc  pixel_ap",
        "draem    0     0.5000       0.2500",
        "nearest  1     0.7500       -",
        "nearest  2     -            -",
    ]


def test_the_log_says_whether_a_run_trains_and_how_often_the_gate_opened(tree, tmp_path, caplog):
    small = [*tiny(tree, "prff_small"), "trainer=debug"]
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        ran(tmp_path, *small, "model.progressive.iterations=1")
        assert "trains from the start" in caplog.text
        assert "further passes" not in caplog.text
        caplog.clear()
        _, path = ran(tmp_path, *small, "model.progressive.iterations=3", "model.progressive.gate=open")
    assert "trains nothing: takes the weights of" in caplog.text
    with (path / "predictions.csv").open() as file:
        images = len(list(csv.DictReader(file)))
    kept = 1  # of four training images a fifth is held out for the threshold
    assert f"progressive reconstruction: {2 * (images + kept)} further passes, gate open" in caplog.text


def test_training_csv_holds_the_rate_that_each_step_took(tree, tmp_path):
    _, path = ran(tmp_path, *tiny(tree, "draem_small"), "trainer.max_steps=10", "model.warmup=0.4")
    with (path / "training.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    full = 2e-3
    wanted = [full / 4, full / 2, full * 3 / 4, *[full] * 5, full * 0.2, full * 0.04]  # milestones at 8 and 9 of 10
    assert rates == pytest.approx(wanted)
