"""What a report of 500 runs costs: seconds, peak MiB and the size of its page, each run in a new process.

python -m tests.bench.bench_report [--tiny]
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.fake_runs import fake_runs

RUNS = 500
MEASURE = """
import os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
print(time.perf_counter() - began, used.ru_maxrss)
"""


def main(arguments: Sequence[str]) -> None:
    """Print the median of five runs; of one run on a few run directories with --tiny."""
    tiny = "--tiny" in arguments
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        count = len(fake_runs(runs, 4 if tiny else RUNS))
        found = [cost(runs) for _ in range(1 if tiny else 5)]
        times = [seconds for seconds, _ in found]
        page = (runs / ".report" / "report.html").stat().st_size / 2**20
    print(
        f"report of {count} runs: median {statistics.median(times):.2f} s of "
        f"{', '.join(f'{t:.2f}' for t in times)}; peak {max(peak for _, peak in found):.0f} MiB; "
        f"page {page:.1f} MiB"
    )


def cost(runs: Path) -> tuple[float, float]:
    """Return the seconds of one report, and the peak memory of its process in MiB."""
    # By a small process, as the peak of a child is at least what its parent held when it was made.
    command = [sys.executable, "-m", "anomaly_lab", "report", f"runs={runs}"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak) / 2**10


if __name__ == "__main__":
    main(sys.argv[1:])
