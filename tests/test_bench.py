"""The benchmarks still run: each one, on inputs so small that its numbers say nothing, prints its table."""

import re

import pytest

from tests.bench.__main__ import FILES
from tests.support.commands import ended

pytestmark = pytest.mark.long

NUMBER = r" *\d+(\.\d+)?"
LEVELS = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro")
STAGES = ("random generator", "augment", "synthesis", "to tensors", "collate", "altogether")
COSTS = ("variation", "unet_small", "patchcore_small")
OURS = f"  anomaly_lab{NUMBER}"
# of each benchmark, what its table's lines are; in this order
TABLES = {
    "cells": [rf"one value{NUMBER} s, 2 values{NUMBER} s:{NUMBER} times; a further cell{NUMBER} s .*"],
    "cost": [
        r"# Sizes and times",
        *(
            rf"\| `{name}`.* \| 64 x 64 \|({NUMBER}( \({NUMBER}\))? \|){{7}}  \|{NUMBER}( \(of \d+\))? \|"
            for name in COSTS
        ),
    ],
    "help": [rf"--help: median{NUMBER} s of{NUMBER}"],
    "loader": [
        r"16 images of \(64, 64\)",
        *(rf"{NUMBER} ms CPU an image  {stage}" for stage in STAGES),
        rf"{NUMBER} images/s,{NUMBER} in a CPU second  1 worker.*",
    ],
    "memory": [
        line
        for method in ("padim", "patchcore")
        for line in (
            rf"{method} on part:      anomaly_lab",
            *(rf"  {name:20s}{NUMBER}" for name in ("seconds", *LEVELS)),
        )
    ],
    "metrics": [
        r"2 maps of 256 x 256, .*",
        *(rf"{name:12s} peer{NUMBER} s, ours \(all metrics\){NUMBER} s" for name in LEVELS[3:5]),
        rf"sum          peer{NUMBER} s, ours \(all metrics\){NUMBER} s:{NUMBER} times faster",
        rf"ours by sorting, .*:{NUMBER} s",
        rf"our state{NUMBER} MiB; a peer keeps{NUMBER} MiB .*",
        r"error bound \S+, allowed 1e-05",
        *(rf"{name:12s} ours{NUMBER}, sorted{NUMBER}, (no )?peer.*" for name in LEVELS[3:]),
    ],
    "mixture": [rf"released  a few at a time{NUMBER} s{NUMBER} MiB"],
    "report": [rf"report of 4 runs: median{NUMBER} s of{NUMBER}; peak{NUMBER} MiB; page{NUMBER} MiB"],
    "synthesis": [
        line
        for threads in (1, 2)
        for line in (
            rf"{threads} thread\(s\), 1 rounds and their medians; .*",
            *[rf"{OURS} images/s, no peer;{OURS} a second of processor time, no peer;"] * 2,
        )
    ],
    "training": [rf"{OURS} s, no peer", rf"ours does{NUMBER} TFLOP/s,{NUMBER}% of the{NUMBER} .*"],
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, list[str]]:
    """The lines of each benchmark, by its name."""
    said = tmp_path_factory.mktemp("bench") / "said.txt"
    assert ended("tests.bench", "--tiny", said=said) == 0, said.read_text()
    sections = re.split(r"^== bench_(\w+)$", said.read_text(), flags=re.M)
    return dict(zip(sections[1::2], (text.splitlines() for text in sections[2::2]), strict=True))


def test_every_benchmark_runs_and_has_a_table_here(printed):
    assert list(printed) == [file.stem.removeprefix("bench_") for file in FILES] == list(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_benchmark_prints_its_table(name, printed):
    lines = [line for line in printed[name] if line.strip()]
    table = iter(lines)
    for wanted in TABLES[name]:
        assert any(re.fullmatch(wanted, line) for line in table), f"{wanted}\n" + "\n".join(lines)
