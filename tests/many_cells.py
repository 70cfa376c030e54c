"""What a sweep costs beside its runs: many cells of a method that takes no time, by several processes.

python -m tests.many_cells [--tiny]

All processes are killed twice on the way. Printed are how many cells ran twice, the time that a cell takes,
from one to the next in a process, the files, and how long a plan of them all takes and a look at them.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.support.trees import mvtec_tree

PROCESSES = 4
METHOD = '''
"""A method that learns and finds nothing."""

import os
import time
from typing import final

import torch
from torch import Tensor

from anomaly_lab.methods.fitted import FittedMethod
from anomaly_lab.types import Prediction


@final
class NoTime(FittedMethod):
    localises = False

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.register_buffer("nothing_", torch.zeros(1))
        self.key = f"{first}-{second}"

    def collect(self, image: Tensor) -> Tensor:
        return image.mean((1, 2, 3))[:, None]

    def fit(self, collected: Tensor) -> None:
        # One write of a line is whole, whoever else writes
        with open(os.environ["NO_TIME_LOG"], "ab", buffering=0) as file:
            file.write(f"{self.key} {os.getpid()} {time.time()}\\n".encode())

    def forward(self, image: Tensor) -> Prediction:
        score = image.mean((1, 2, 3)) + self.nothing_
        return Prediction(image.mean(1), score)
'''
RECIPE = """# @package _global_
defaults: [override /synthesis: none]
model: {_target_: no_time.NoTime, first: 0, second: 0}
data: {image_size: 32, batch_size: 8, holdout: 0.0}
trainer: {max_epochs: 1, max_steps: -1}
evaluation: {bootstrap: 0, overlays: 0}
"""


def main(arguments: Sequence[str]) -> None:
    """Print what was measured; 24 cells with --tiny, else 5,000."""
    axes = (3, 4, 2) if "--tiny" in arguments else (50, 10, 10)
    cells = axes[0] * axes[1] * axes[2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "mine" / "model").mkdir(parents=True)
        (folder / "mine" / "no_time.py").write_text(METHOD)
        (folder / "mine" / "model" / "no_time.yaml").write_text(RECIPE)
        mvtec_tree(folder / "data", train=2, good=2, bad=2)
        words = [sys.executable, "-m", "anomaly_lab", "--config-dir", "mine", "-m", "model=no_time"]
        words += ["allow=[no_time]", "data=mvtec", "data.root=data", "data.category=part"]
        names = ("model.first", "model.second", "seed")
        words += [f"{name}=range({count})" for name, count in zip(names, axes, strict=True)]
        log = folder / "log.txt"
        for rate in (0.2, 0.5):  # of the cells, at which all are killed
            killed(words, folder, log, round(rate * cells))
        began = time.perf_counter()
        finished(words, folder, log)
        seconds = time.perf_counter() - began
        lines = [line.split() for line in log.read_text().splitlines()]
        report(folder, cells, lines, seconds)
        one = [word for word in words if "=range(" not in word]
        alone = looked(one, folder, log)
        again = looked(words, folder, log)
        print(
            f"once more, nothing to do: {again:.1f} s, of one cell {alone:.1f} s: {again - alone:.1f} s more"
        )


def looked(words: Sequence[str], folder: Path, log: Path) -> float:
    """Return the seconds of a command whose cells are done, with the start of Python."""
    began = time.perf_counter()
    subprocess.run(words, cwd=folder, env=environment(log), check=True, capture_output=True)
    return time.perf_counter() - began


def environment(log: Path) -> dict[str, str]:
    """Return that of a process; it writes a line a fit."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"NO_TIME_LOG": str(log), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def started(words: Sequence[str], folder: Path, log: Path, number: int) -> subprocess.Popen[bytes]:
    """Start one of the processes; what it says goes to a file."""
    with (folder / f"said-{number}-{time.time():.0f}.txt").open("wb") as said:
        return subprocess.Popen(words, cwd=folder, env=environment(log), stdout=said, stderr=said)


def killed(words: Sequence[str], folder: Path, log: Path, at: int) -> None:
    """Let all processes sweep until so many cells have been fitted; then kill them."""
    processes = [started(words, folder, log, number) for number in range(PROCESSES)]
    while not log.exists() or log.read_bytes().count(b"\n") < at:
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()


def finished(words: Sequence[str], folder: Path, log: Path) -> None:
    """Let all processes sweep to their ends."""
    processes = [started(words, folder, log, number) for number in range(PROCESSES)]
    codes = [process.wait() for process in processes]
    print(f"exit codes: {codes}")


def report(folder: Path, cells: int, lines: Sequence[Sequence[str]], seconds: float) -> None:
    """Print what the log and the folder of the runs say."""
    runs = list(folder.glob("runs/*/*/*/*/manifest.json"))
    done = sum('"status": "done"' in file.read_text() for file in runs)
    # A cell that was killed on its way is fitted again; one that was done never is
    again = len(lines) - cells
    print(f"{cells} cells by {PROCESSES} processes: {done} done, {again} fits more than cells")
    print(f"  of which may be killed on their way: {2 * PROCESSES}")
    times: dict[str, list[float]] = {}
    for _, process, moment in lines:
        times.setdefault(process, []).append(float(moment))
    steps = sorted(later - earlier for moments in times.values() for earlier, later in pairwise(moments))
    p50 = statistics.median(steps)
    p95 = steps[int(0.95 * (len(steps) - 1))]
    print(f"a cell, from fit to fit in a process: p50 {p50:.2f} s, p95 {p95:.2f} s")
    print(f"the part after the second kill: {seconds:.0f} s")
    files = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files, {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
