"""Supervised runs: the word stands wherever their numbers do, and no other method is ranked with them."""

import csv
import io
import re

import pytest

from anomaly_lab.report.beside import Papers
from anomaly_lab.report.compared import compared
from anomaly_lab.report.found import found
from anomaly_lab.report.names import headings, title
from anomaly_lab.report.remarks import on_runs
from anomaly_lab.report.summary import heading
from anomaly_lab.report.tables import tables
from anomaly_lab.report.texts import as_csv
from anomaly_lab.sweeps.table import Outcome, closing_table
from tests.report.folders import kept

TAUGHT = {"counts": {"anomalies": 5, "train": 9}}
CATEGORIES = [f"c{number}" for number in range(6)]


@pytest.fixture
def runs(tmp_path):
    for place, category in enumerate(CATEGORIES):
        kept(tmp_path, f"padim/own/{category}", image_auroc=0.8 + place / 100)
        kept(tmp_path, f"nearest/own/{category}", image_auroc=0.7, manifest={"counts": {"train": 9}})
        kept(tmp_path, f"unet_small/own/{category}", image_auroc=0.99, manifest=TAUGHT)
    return found(tmp_path)


def test_the_word_stands_in_headings_csv_page_and_remarks(runs):
    (table,) = tables(runs.runs, ["image_auroc"])
    assert headings(table) == ["nearest", "padim", "unet_small (reduced) (supervised)"]
    lines = list(csv.DictReader(io.StringIO(as_csv([table], Papers([])))))
    assert {line["model"]: line["stamp"] for line in lines} == {
        "padim": "",
        "nearest": "",
        "unet_small": "reduced supervised",
    }
    assert 'class="stamp" title="learned from labelled defects' in "".join(heading(table.columns[2]))
    assert any(line.startswith("supervised, learned from labelled") for line in on_runs(runs, [table]))


def test_they_are_ranked_with_each_other_alone_and_never_the_best_of_others(runs, tmp_path):
    (table,) = tables(runs.runs, ["image_auroc"])
    plot = re.search(r"<svg.*</svg>", "".join(compared([table])))[0]
    assert "padim" in plot
    assert "unet" not in plot
    for category in CATEGORIES:
        kept(tmp_path / "alone", f"unet_small/own/{category}", image_auroc=0.99, manifest=TAUGHT)
        kept(tmp_path / "alone", f"fcn32s_small/own/{category}", image_auroc=0.9, manifest=TAUGHT)
    (alone,) = tables(found(tmp_path / "alone").runs, ["image_auroc"])
    assert "unet" in re.search(r"<svg.*</svg>", "".join(compared([alone])))[0]


def test_a_table_of_one_method_says_it_once(tmp_path):
    for n in (1, 5):
        differs = {"data.train_anomalies": n}
        manifest = {"counts": {"anomalies": n}}
        kept(tmp_path, "capsnet/own/a", differs=differs, manifest=manifest, image_auroc=0.5)
    (table,) = tables(found(tmp_path).runs, ["image_auroc"])
    assert headings(table) == ["train_anomalies=1", "train_anomalies=5"]
    assert title(table).startswith("own, image_auroc: capsnet (supervised); ")


def test_the_closing_table_of_a_sweep_says_how_many_defects_a_row_learned_from():
    metrics = {"image_auroc": 0.9}
    outcomes = [
        Outcome({"model": "padim"}, 0, metrics),
        Outcome({"model": "capsnet"}, 0, metrics, anomalies=5),
    ]
    lines = closing_table(outcomes).split("\n")[1:]
    assert [line.split() for line in lines] == [
        ["model", "image_auroc", "supervised"],
        ["padim", "0.9000"],
        ["capsnet", "0.9000", "5"],
    ]
    assert "supervised" not in closing_table(outcomes[:1] * 2)
