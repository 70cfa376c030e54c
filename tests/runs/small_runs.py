"""Runs that take a second, and their manifests."""

import json
from pathlib import Path

from tests.support.runs import on_tree


def control(tree: Path) -> list[str]:
    short = ["data.image_size=16", "evaluation.overlays=0", "evaluation.bootstrap=10"]
    return ["model=nearest", *on_tree(tree), *short]


def tiny_draem(tree: Path) -> list[str]:
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=3", "data.holdout=0"]
    short = [
        "trainer.max_steps=4",
        "trainer.save_minutes=0",
        "evaluation.overlays=0",
        "evaluation.bootstrap=10",
    ]
    return [*small, *on_tree(tree), *short]


def manifest(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


def edit(path: Path, **changes: object) -> None:
    (path / "manifest.json").write_text(json.dumps({**manifest(path), **changes}))
