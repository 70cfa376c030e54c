"""The commands on the pages of the methods: each composes and fits; of a small recipe the first job runs."""

import logging
import sys
from pathlib import Path

import pytest

from anomaly_lab.__main__ import main
from anomaly_lab.config.checked import Checked
from tests.support.documents import commands, first_cell, pages, photographs, small
from tests.support.runs import composed, options

pytestmark = pytest.mark.long

PAGES = pages("docs/methods")
COMMANDS = [
    (page.stem, command) for page in PAGES for fence in ("sh", "console") for command in commands(page, fence)
]


def runs_here(command: list[str]) -> bool:
    """Say whether it is a recipe of this machine's size, on data that the test has."""
    model = next((word for word in command if word.startswith("model=")), "")
    experiment = any(word.startswith("experiment=") for word in command)
    return "data=magnetic_tile" not in command and not experiment and ("small" in model or "nearest" in model)


def params(*, running: bool) -> list:
    """Return the commands that run here, or those that do not."""
    chosen = [(name, command) for name, command in COMMANDS if runs_here(command) is running]
    return [pytest.param(command, id=f"{name}: {' '.join(command)}"[:100]) for name, command in chosen]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(scope="module")
def places(desk) -> dict[str, str]:
    return photographs(desk)


@pytest.mark.parametrize("command", params(running=False))
def test_a_command_of_a_page_composes_and_fits(command, places):
    words = first_cell(small(command, places))
    experiment = [word for word in words if word.startswith("experiment=")]
    cfg = composed(*(word for word in words if word not in experiment))
    assert Checked.of(cfg, ()).leaves


@pytest.mark.parametrize("command", params(running=True))
def test_the_first_job_of_a_small_recipe_runs(command, desk, places, monkeypatch, capfd):
    monkeypatch.chdir(desk)
    kept = logging.root.handlers[:], logging.root.level
    monkeypatch.setattr(sys, "argv", ["anomaly_lab", *first_cell(small(command, places))])
    assert main() == 0, capfd.readouterr().err
    logging.root.handlers[:] = kept[0]
    logging.root.setLevel(kept[1])


def test_every_recipe_has_a_command_on_the_page_of_its_method():
    """A page has the name of a method's module: capsnet_28 stands on capsnet's."""
    named = {
        (page, model)
        for page, command in COMMANDS
        for word in command
        if word.startswith("model=")
        for model in word.removeprefix("model=").split(",")
    }
    modules = {recipe: composed(f"model={recipe}", "data=demo").model._target_ for recipe in options("model")}
    wanted = {(target.split(".")[2], recipe) for recipe, target in modules.items()}
    assert wanted - named == set()
