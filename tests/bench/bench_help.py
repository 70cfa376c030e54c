"""How long ``python -m anomaly_lab --help`` takes: the median of five runs, each in a new process.

python -m tests.bench.bench_help [--tiny]
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Print the median and all times; of one run with --tiny."""
    times = [seconds() for _ in range(1 if "--tiny" in arguments else 5)]
    print(f"--help: median {statistics.median(times):.2f} s of {', '.join(f'{t:.2f}' for t in times)}")


def seconds() -> float:
    """Return the seconds of one run."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "anomaly_lab", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1:])
