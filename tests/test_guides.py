"""Every command and every piece of code in README and the guides runs, on small photographs.

A sweep is cut to two jobs, a training to two steps.
"""

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import anomaly_lab
from anomaly_lab.__main__ import main
from anomaly_lab.config import own_code
from anomaly_lab.data.sets.demo import parts
from tests.support.documents import blocks, commands, pages, photographs, small, two_cells
from tests.support.runs import CHECKOUT
from tests.support.trees import normal_image, write_png

PAGES = ("start", "data", "sweeps", "devices", "dashboards", "synthesis")
GUIDES = pages("README.md", *(f"docs/{name}.md" for name in PAGES))
EXTEND = CHECKOUT / "docs" / "extend.md"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder to stand in, with photographs, and the code of docs/extend.md in its files."""
    root = tmp_path_factory.mktemp("desk")
    for fence in ("python", "yaml"):
        for block in blocks(EXTEND, fence):
            if found := re.search(r"\A(?:#.*\n)?# (my_folder/\S+)$", block, re.MULTILINE):
                file = root / found[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)
    return root


@pytest.fixture(scope="module", autouse=True)
def few_drawn():
    """Draw a handful of the demo's parts: what a command does is the same with few."""
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("TRAIN", 10), ("GOOD", 3), ("PER_DEFECT", 1)):
            patch.setattr(parts, name, count)
        yield


@pytest.fixture(scope="module")
def places(desk) -> dict[str, str]:
    return photographs(desk)


@pytest.fixture
def done(desk, places, monkeypatch):
    """What does a command, standing at the desk; own code is forgotten afterwards."""
    monkeypatch.chdir(desk)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", sys.path[:])
    kept = logging.root.handlers[:], logging.root.level

    def run(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["anomaly_lab", *two_cells(small(arguments, places))])
        try:
            return main()
        except SystemExit as ended:  # of --help
            return int(ended.code or 0)

    yield run
    logging.root.handlers[:] = kept[0]
    logging.root.setLevel(kept[1])


GUIDE_COMMANDS = [
    pytest.param(c, id=f"{page.stem}: {' '.join(c)}"[:90]) for page in GUIDES for c in commands(page)
]
OWN_COMMANDS = [pytest.param(c, id=" ".join(c)[:90]) for c in commands(EXTEND)]


@pytest.mark.parametrize("arguments", GUIDE_COMMANDS)
def test_a_command_of_the_guides_runs(done, arguments, capfd):
    assert done(arguments) == 0, capfd.readouterr().err


@pytest.mark.parametrize("arguments", OWN_COMMANDS)
def test_a_command_with_code_of_ones_own_runs(done, arguments, desk, capfd):
    assert (desk / "my_folder" / "my_method.py").exists()
    assert done(arguments) == 0, capfd.readouterr().err


@pytest.mark.parametrize("page", pages("README.md", "docs/start.md"), ids=lambda page: page.stem)
def test_the_first_command_leaves_maps_where_the_page_says(page, done, desk, capfd):
    first = next(commands(page))
    assert first == ["model=patchcore_small", "data=demo"]
    said = re.search(r"`(runs/[\w/]+/)run-HASH-seed0`", page.read_text())
    assert done([*first, f"tag={page.stem.lower()}", "evaluation.overlays=3"]) == 0, capfd.readouterr().err
    (folder,) = (desk / said[1]).glob(f"{page.stem.lower()}-*-seed0")
    assert len(list((folder / "maps").glob("*.png"))) == 3
    shown = capfd.readouterr()
    assert f"{said[1]}{folder.name}" in shown.out + shown.err
    assert "image_auroc" in shown.out + shown.err


def test_there_are_commands_and_all_the_code_of_extend_is_in_files(desk):
    assert len(GUIDE_COMMANDS) > 20
    assert len(OWN_COMMANDS) > 5
    written = {file.relative_to(desk / "my_folder").as_posix() for file in (desk / "my_folder").rglob("*.*")}
    assert {"my_method.py", "my_fitted.py", "my_data.py", "model/mine.yaml", "data/mine.yaml"} <= written


@pytest.mark.parametrize(
    "page", pages("README.md", "docs/python.md", "docs/results.md", "docs/extend.md"), ids=str
)
def test_the_python_of_a_page_runs(page, desk, monkeypatch):
    """The pieces of a page build on each other, so they run in one namespace, on the data of this test."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", sys.path[:])
    own_code.on_path(desk / "my_folder")
    write_png(desk / "part.png", normal_image((72, 96), 99))
    run = anomaly_lab.run

    def brief(overrides=(), **more):
        short = ["trainer=debug", "evaluation.overlays=0", "evaluation.bootstrap=10"]
        return run([*overrides, *short], **more)

    monkeypatch.setattr(anomaly_lab, "run", brief)
    rng = np.random.default_rng(0)
    names = {"np": np, "scores": rng.random(20), "labels": np.arange(20) < 9}
    names |= {"maps": rng.random((4, 16, 16)), "masks": rng.random((4, 16, 16)) < 0.1}
    pieces = [block for block in blocks(page, "python") if "# my_folder/" not in block]
    for piece in pieces:
        exec(compile(piece, str(page), "exec"), names)
    assert pieces or page.stem == "results"
    if "done" in names:
        assert (names["done"].path / "metrics.json").exists()
        assert 0 <= names["done"].metrics["image_auroc"] <= 1
    if "prediction" in names:
        assert names["prediction"].score.shape == (1,)
        assert names["prediction"].anomaly_map.isfinite().all()
