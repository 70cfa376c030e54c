"""Proof that a refactor changed no number: small runs before and after it, compared bit by bit.

    python -m tests.kept_runs make FOLDER [--real DIR]    the runs below, by the code of this directory
    python -m tests.kept_runs compare BEFORE AFTER        exit code 1 if a number differs; names every one

``--real`` adds runs on real images: DIR holds categories in MVTec AD's layout (a trained, a fitted method and
HIT-MiLF on each). Every run is a process of its own, started as a user would, so the code before may have
other module names.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHORT = ["evaluation.bootstrap=100", "evaluation.overlays=4"]
RUNS: dict[str, list[str]] = {
    "draem": ["model=draem_small", "trainer.max_steps=24", "data.batch_size=4"],
    "draem_workers": [
        "model=draem_small",
        "trainer.max_steps=24",
        "data.batch_size=4",
        "data.workers=2",
        "tag=workers",
    ],
    "draem_cutpaste": [
        "model=draem_small",
        "synthesis=cutpaste",
        "trainer.max_steps=8",
        "data.category=weave",
    ],
    "prff_sweep": ["-m", "model=prff_small", "trainer.max_steps=12", "model.progressive.iterations=1,2,3"],
    "mlff": ["model=mlff_small", "trainer.max_steps=30", "data.category=chip"],
    "vt_adl": ["model=vt_adl_small", "trainer.max_steps=12"],
    "vt_adl_released": ["model=vt_adl_released_small", "trainer.max_steps=12"],
    "cpcae_folds": ["model=cpcae_knn_small", "trainer.max_steps=20", "model.residual_folds=2"],
    "capsnet": ["model=capsnet_small", "data.train_anomalies=2", "trainer.max_steps=12"],
    "ae_l2": ["model=ae_l2_small", "trainer.max_steps=20"],
    "padim_maps": ["model=padim_small", "evaluation.save_maps=true", "evaluation.resolution=original"],
    "patchcore": ["model=patchcore_small", "data.category=chip"],
    "deep_knn_sweep": ["-m", "model=deep_knn_small", "model.estimator.neighbors=1,5", "seed=0,1"],
    "hit_milf_poison": ["model=hit_milf_small", "evaluation.poison=true"],
    "controls": ["-m", "model=nearest,variation", "data.category=weave,nut"],
}
REAL = {
    "trained": ["model=draem_small", "trainer.max_steps=16"],
    "fitted": ["model=patchcore_small"],
    "hit_milf": ["model=hit_milf_small", "data.augment.copies=2"],
}


def make(folder: Path, real: Path | None) -> None:
    """Make every run that is not there; a finished one is skipped by the run directory itself."""
    for name, overrides in RUNS.items():
        _run(folder, name, overrides)
    _interrupted(folder)
    for category in sorted(path.name for path in real.iterdir() if (path / "train").is_dir()) if real else ():
        for name, overrides in REAL.items():
            where = ["data=mvtec", f"data.root={real}", f"data.category={category}"]
            _run(folder, f"{name}_{category}", [*overrides, *where])


def _command(folder: Path, name: str, overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "anomaly_lab", *overrides, *SHORT, f"runs={folder / name}"]


def _run(folder: Path, name: str, overrides: list[str]) -> None:
    began = time.monotonic()
    own = os.environ | {
        "ANOMALY_LAB_CACHE": str(folder / "cache")
    }  # no feature of the code before is taken over
    done = subprocess.run(
        _command(folder, name, overrides), capture_output=True, text=True, check=False, env=own
    )
    print(f"{name}: exit code {done.returncode}, {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)


def _interrupted(folder: Path) -> None:
    """Kill a training after its first saved state, then give the same command again."""
    overrides = ["model=draem_small", "trainer.max_steps=40", "trainer.save_minutes=0"]
    command = _command(folder, "resumed", overrides)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((folder / "resumed").glob("*/*/*/*/resume.ckpt")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _run(folder, "resumed", overrides)


def compare(before: Path, after: Path) -> int:
    """Print what differs, run by run; return 1 if anything does."""
    old, new = (dict(_found(folder)) for folder in (before, after))
    differences = [f"{name}: only in {before if name in old else after}" for name in old.keys() ^ new.keys()]
    for name in sorted(old.keys() & new.keys()):
        differences += [f"{name}: {line}" for line in _differing(old[name], new[name])]
    print("\n".join(differences) or f"{len(old)} runs, no difference")
    return bool(differences)


def _found(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name each finished run by what it is, without its hash, which a refactor may change."""
    for file in sorted(folder.glob("*/*/*/*/*/manifest.json")):
        manifest = json.loads(file.read_text())
        if manifest["status"] == "done":
            differs = {key: value for key, value in sorted(manifest["differs"].items()) if key != "runs"}
            yield (
                f"{file.parents[4].name} seed {manifest['seed']} {manifest['choices']['model']} {differs}",
                file.parent,
            )


def _differing(old: Path, new: Path) -> Iterator[str]:
    """Name the files that differ, and those that only one of the runs has."""
    contents: dict[str, Callable[[Path], Any]] = {
        "metrics.json": lambda file: json.loads(file.read_text()),
        "training.csv": _losses,
        "curves.npz": _arrays,
        "maps/maps.npz": _arrays,
        "model.ckpt": _weights,
    }
    contents |= dict.fromkeys(("predictions.csv", "poison.csv", "poison_predictions.csv"), Path.read_text)
    contents["figures/tsne.csv"] = Path.read_text
    # Overlays alone: the titles of figures have the hash of the config in them.
    names = {file.relative_to(run).as_posix() for run in (old, new) for file in run.glob("maps/*.png")}
    contents |= dict.fromkeys(names, Path.read_bytes)
    for name, content in contents.items():
        there = [(run / name).exists() for run in (old, new)]
        if there[0] != there[1]:
            yield f"{name}: in one of the two only"
        elif all(there) and content(old / name) != content(new / name):
            yield name


def _losses(file: Path) -> list[tuple[str, ...]]:
    """Return step, epoch, loss and learning rate; the other columns are times."""
    return [tuple(row[:4]) for row in csv.reader(file.read_text().splitlines())]


def _arrays(file: Path) -> dict[str, bytes]:
    with np.load(file) as arrays:
        return {name: array.tobytes() for name, array in arrays.items()}


def _weights(file: Path) -> dict[str, bytes]:
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    return {name: value.contiguous().numpy().tobytes() for name, value in state.items()}


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["make", "compare"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--real", type=Path)
    given = parser.parse_args()
    if given.verb == "make":
        make(given.folders[0].resolve(), given.real and given.real.resolve())
        return 0
    return compare(*given.folders)


if __name__ == "__main__":
    sys.exit(main())
