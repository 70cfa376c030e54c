"""The state to resume from: saved whole or not at all, and never at the cost of the training."""

import logging
import resource
from pathlib import Path

import pytest

from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=4, size=(64, 64))


def tiny(tree: Path, model: str = "draem_small") -> list[str]:
    small = ["data.image_size=64", "data.batch_size=2", "data.holdout=0"]
    return [f"model={model}", *on_tree(tree), *small]


@pytest.fixture
def small_files():
    """Call it with a size in bytes: no file can then become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_training_goes_on_without_a_state_that_could_not_be_saved(tree, tmp_path, small_files, caplog):
    length = ("trainer.max_steps=6", "trainer.save_minutes=0")
    _, path = ran(tmp_path / "first", *tiny(tree), *length)
    # Adam's state makes the other three times as large
    small_files(int((path / "model.ckpt").stat().st_size * 1.5))
    with caplog.at_level(logging.WARNING):
        _, path = ran(tmp_path / "second", *tiny(tree), *length)
    said = [record.getMessage() for record in caplog.records if "goes on without" in record.getMessage()]
    assert len(said) == 3
    assert "resume.ckpt: cannot be written (File too large)" in said[0]
    assert (path / "model.ckpt").exists()
    assert not list(path.rglob("*.part"))
