"""Sweeps on the command line in this process, with the real conf and a stand-in for the work of a run."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from anomaly_lab import __main__ as cli
from anomaly_lab import train
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import locked
from anomaly_lab.runs.recording import early_failures_kept, recording
from tests.support.runs import on_tree
from tests.support.trees import mvtec_tree


class Runs(list[tuple[str, int]]):
    """Does runs, but for their work: category and seed of each that began; those in ``raises`` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.raises: dict[int, BaseException] = {}  # by seed, within the run
        self.early: dict[int, BaseException] = {}  # by seed, before it begins
        self.metrics: Callable[[DictConfig], dict[str, float]] = lambda cfg: {"image_auroc": cfg.seed / 10}

    def __call__(self, asked: Composition) -> None:
        cfg = asked.cfg
        checked = Checked.of(cfg, (), asked.recipe, asked.typed)
        directory = RunDirectory.of(asked.folder, cfg.tag, checked.config_hash, cfg.seed)
        known = asked.described(checked.differs)
        with early_failures_kept(directory, known, keep=asked.sweeping):
            if cfg.seed in self.early:
                raise self.early[cfg.seed]
            with locked(directory.path):
                if directory.wants_a_run({}, retry=asked.retries):
                    with recording(directory, OmegaConf.to_yaml(cfg), asked.overrides, known, resume=True):
                        self.append((cfg.data.category, cfg.seed))
                        if cfg.seed in self.raises:
                            raise self.raises[cfg.seed]
                        directory.write_json("metrics.json", self.metrics(cfg))


@pytest.fixture
def runs(monkeypatch):
    """What stands for `anomaly_lab.train.run`."""
    seen = Runs()
    monkeypatch.setattr(train, "run", seen)
    return seen


@pytest.fixture
def sweep(runs, tmp_path, monkeypatch):
    """Return what sweeps over ``nearest`` on small categories; returns the exit code."""
    for category in ("part", "other"):
        mvtec_tree(tmp_path / "data", category)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(cli, "TRACEBACKS", False)

    def call(*words: str) -> int:
        given = ["model=nearest", *on_tree(tmp_path / "data")]
        keys = {word.partition("=")[0] for word in words}
        defaults = [word for word in given if word.partition("=")[0] not in keys]
        monkeypatch.setattr(sys, "argv", ["anomaly_lab", "-m", *defaults, *words])
        return cli.main()

    return call


def rows(out: str, count: int) -> list[Sequence[str]]:
    """Return the words of the last lines."""
    return [line.split() for line in out.rstrip().splitlines()[-count:]]


def directories(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("runs/*/*/*/*/manifest.json"))
