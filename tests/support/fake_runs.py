"""Run directories in the layout of real ones, as many as wanted, without a training: what a report reads."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

MVTEC = ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw")
METHODS = {"nearest": 0.3, "variation": 0.1, "padim_small": 1.7, "patchcore_small": 2.1, "draem_small": 1.4}
ITERATIONS = "model.progressive.iterations"
KINDS = ("lowest-defective", "highest-good", "highest-defective")
IMAGES = 40  # test images of a category, half of them defective
CONFIG = """\
seed: {seed}
tag: run
tags: []
evaluation:
  _target_: anomaly_lab.evaluation.settings.EvaluationSettings
  resolution: network
  fpr_limit: 0.3
  target_fpr: 0.05
  overlays: 12
  bootstrap: 1000
  save_maps: false
  poison: false
data:
  _target_: anomaly_lab.data.sets.mvtec.MVTec
  root: datasets/mvtec
  category: {category}
  image_size: 256
  holdout: 0.2
  batch_size: 8
model:
  _target_: anomaly_lab.methods.{model}.Method
  reconstructive_width: 16
  learning_rate: 0.0001
  progressive:
    _target_: anomaly_lab.methods.prff.progressive.Progressive
    iterations: {iterations}
    threshold: 0.5
    gate: once
trainer:
  _target_: anomaly_lab.training.settings.TrainerSettings
  device: auto
  precision: 32-true
  max_epochs: 40
"""


class Plan(NamedTuple):
    """A run that shall have been."""

    model: str
    category: str
    seed: int
    differs: dict[str, Any]
    skill: float  # by how many deviations defects score above normal images


def plans(count: int) -> Iterator[Plan]:
    """Yield so many: half of them methods, half of them an ablation of PRFF-AD, on MVTec AD's names."""
    kinds = [(model, {}, skill) for model, skill in METHODS.items()]
    kinds += [("prff_small", {} if n == 2 else {ITERATIONS: n}, 1.5 - 0.2 * abs(n - 2)) for n in range(1, 6)]
    made = 0
    for seed in range(count):
        for category in MVTEC:
            for model, differs, skill in kinds:
                if made == count:
                    return
                made += 1
                yield Plan(model, category, seed, differs, skill)


def fake_runs(root: Path, count: int, overlays: int = 12) -> list[Path]:
    """Write so many run directories below ``root``, the same each time; return their paths."""
    pool = _pictures(root / ".pool") if overlays else []
    return [_run(root, plan, pool, overlays) for plan in plans(count)]


def _run(root: Path, plan: Plan, pool: Sequence[Path], overlays: int) -> Path:
    address = [plan.seed, MVTEC.index(plan.category), *plan.model.encode(), plan.differs.get(ITERATIONS, 0)]
    rng = np.random.default_rng(address)
    skill = plan.skill + rng.normal(0, 0.3)
    digest = f"{np.random.default_rng(address[1:]).integers(2**32):08x}"  # of a config, alike for all seeds
    folder = root / plan.model / "mvtec" / plan.category / f"run-{digest}-seed{plan.seed}"
    (folder / "maps").mkdir(parents=True)
    (folder / "figures").mkdir()
    words = {"category": plan.category, "model": plan.model, "seed": plan.seed}
    (folder / "config.yaml").write_text(CONFIG.format(**words, iterations=plan.differs.get(ITERATIONS, 2)))
    (folder / "manifest.json").write_text(json.dumps(_manifest(plan, digest), indent=2))
    curves = _curves(skill)
    (folder / "metrics.json").write_text(json.dumps(_metrics(curves, skill), indent=2))
    np.savez(folder / "curves.npz", **curves)
    names = [("good", number) for number in range(IMAGES // 2)]
    names += [("crack", number) for number in range(IMAGES // 2)]
    scores = np.r_[rng.normal(0, 1, IMAGES // 2), rng.normal(skill, 1, IMAGES // 2)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "defect", "label", "score"))
        for (defect, number), score in zip(names, scores.tolist(), strict=True):
            path = f"datasets/mvtec/{plan.category}/test/{defect}/{number:03}.png"
            rows.writerow((path, defect, int(defect != "good"), score))
    for place in range(overlays):
        kind = KINDS[place % 2] if place < overlays // 2 else KINDS[2]
        stem = f"{'good' if kind == KINDS[1] else 'crack'}-{int(rng.integers(6)):03}"
        file = folder / "maps" / f"{place:02}-{kind}-{stem}.png"
        os.link(pool[int(rng.integers(len(pool)))], file)
    return folder


def _manifest(plan: Plan, digest: str) -> dict[str, Any]:
    choices = {"model": plan.model, "data": "mvtec", "synthesis": "none", "trainer": "default"}
    return {
        "choices": {**choices, "logger": "csv"},
        "tag": "run",
        "tags": [],
        "config_hash": digest * 8,
        "training_hash": digest * 8,
        "seed": plan.seed,
        "data_fingerprint": "304ec43604c4a660",
        "data_content": "304ec43604c4a660",
        "synthesis_source": None,
        "weights": [],
        "differs": {"data.category": plan.category, **plan.differs},
        "counts": {"train": 51, "normal": 13, "test": IMAGES, "anomalous": IMAGES // 2, "unmasked": 0},
        "command": f"python -m anomaly_lab model={plan.model} data=mvtec data.category={plan.category}",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "versions": {"python": "3.11.7", "torch": "2.14.1", "lightning": "2.6.6", "numpy": "2.4.6"},
        "hardware": "cpu: x86_64 x 2 threads",
        "started": f"2026-11-{1 + plan.seed % 28:02}T16:20:04+00:00",
        "status": "done",
        "seconds": 61.5,
        "doubts": [],
    }


def _curves(skill: float) -> dict[str, np.ndarray]:
    """Return curves of two normal distributions so far apart, 500 points each."""
    normal = NormalDist()
    fpr = np.linspace(0, 1, 500) ** 3
    inner = [normal.cdf(skill + normal.inv_cdf(rate)) for rate in fpr[1:-1].tolist()]
    tpr = np.r_[0.0, inner, 1.0]
    found = {}
    for level, share in (("image", 0.5), ("pixel", 0.02)):
        called = tpr * share + fpr * (1 - share)
        precision = np.divide(tpr * share, called, out=np.ones(500), where=called > 0)
        found |= {f"{level}_fpr": fpr, f"{level}_tpr": tpr, f"{level}_precision": precision}
    return found | {"pixel_overlap": tpr**1.2}


def _metrics(curves: dict[str, np.ndarray], skill: float) -> dict[str, float]:
    fpr, tpr = curves["image_fpr"], curves["image_tpr"]
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())
    return {
        "image_auroc": area,
        "image_ap": area**1.1,
        "image_f1_max": area**1.3,
        "pixel_auroc": area**0.5,
        "pixel_ap": area**4,
        "pixel_f1_max": area**3,
        "pixel_aupro": area**0.9,
        "threshold": skill / 2,
    }


def _pictures(folder: Path) -> list[Path]:
    """Write 16 sheets, each of the size of a real one: a noisy part, a map, both, the truth."""
    folder.mkdir(parents=True)
    files = []
    for number in range(16):
        rng = np.random.default_rng(number)
        row = np.linspace(60, 160, 224)
        part = (row[:, None] + row[None, :] / 2 + rng.normal(0, 6, (224, 224))).clip(0, 255)
        sheet = np.full((272, 920, 3), 255, np.uint8)
        for place in range(4):
            sheet[48:, 230 * place + 3 : 230 * place + 227] = part[..., None]
        files.append(folder / f"{number:02}.png")
        Image.fromarray(sheet).save(files[-1], compress_level=1)
    return files
