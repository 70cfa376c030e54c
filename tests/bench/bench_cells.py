"""What further values of a key cost that only scoring depends on, beside the first one.

python -m tests.bench.bench_cells [--tiny | DIR CATEGORY]

The neighbours of deep_knn_small are swept, on images made here or on a category laid out as MVTec AD. One
value and ten are each a command of its own, with nothing kept from before.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.support.trees import mvtec_tree

VALUES = 10


def main(arguments: Sequence[str]) -> None:
    """Print the seconds of one value and of ten, their ratio, and the time of a further one."""
    tiny = "--tiny" in arguments
    with tempfile.TemporaryDirectory() as folder:
        if tiny or not arguments:
            counts = {"train": 6} if tiny else {"train": 762, "good": 190, "bad": 388, "size": (256, 256)}
            root, category = str(mvtec_tree(Path(folder) / "data", **counts)), "part"  # type: ignore[arg-type]
        else:
            root, category = (str(Path(arguments[0]).absolute()), arguments[1])
        found = [seconds(Path(folder), root, category, count) for count in (1, 2 if tiny else VALUES)]
    (one, _), (many, further) = found
    cells = f"a further cell {statistics.median(further):.2f} s (median of {len(further)})"
    print(f"one value {one:.1f} s, {1 + len(further)} values {many:.1f} s: {many / one:.2f} times; {cells}")


def seconds(folder: Path, root: str, category: str, count: int) -> tuple[float, list[float]]:
    """Return the seconds of a sweep of so many values, and of each cell after its first."""
    place = folder / str(count)
    place.mkdir()
    command = [sys.executable, "-u", "-m", "anomaly_lab", "-m", "model=deep_knn_small", "data=mvtec"]
    command += [f"data.root={root}", f"data.category={category}", f"cache.folder={place / 'cache'}"]
    command += [
        f"runs={place / 'runs'}",
        f"model.estimator.neighbors={','.join(map(str, range(1, count + 1)))}",
    ]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as sweep:
        assert sweep.stdout is not None
        lines = [(line, time.perf_counter()) for line in sweep.stdout]
    done = [at for line, at in lines if re.search(r": done in [\d.]+ s$", line.rstrip())]
    if sweep.returncode or len(done) != count:
        sys.exit("".join(line for line, _ in lines))
    took = time.perf_counter() - began
    return took, [after - before for before, after in pairwise(done)]


if __name__ == "__main__":
    main(sys.argv[1:])
