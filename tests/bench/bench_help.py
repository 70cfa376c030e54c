"""How long ``python -m anomaly_lab --help`` takes: the median of five runs, each in a new process.

python tests/bench/bench_help.py
"""

import statistics
import subprocess
import sys
import time


def seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "anomaly_lab", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    times = [seconds() for _ in range(5)]
    print(f"--help: median {statistics.median(times):.2f} s of {', '.join(f'{t:.2f}' for t in times)}")
