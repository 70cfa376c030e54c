"""Memory and time of VT-ADL's likelihood at the paper's size, a few Gaussians at a time, or all.

    python -m tests.bench.bench_mixture [--tiny]

Eight images of 64 tokens, dim 512, 150 Gaussians, forward and backward, gradients of all 78.7 M parameters
(300 MiB) included. The aim is 1,536 MiB above what the process holds before. Needs Linux, which tells a
process its peak. --tiny: one case, dim 16, five Gaussians.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from anomaly_lab.methods.vt_adl import mixture_density

AIM = 1536  # MiB
KINDS = {"released": ("expected", "softplus_as_log"), "corrected": ("logsumexp", "softplus_with_floor")}


def main(arguments: Sequence[str]) -> None:
    """Measure each case; exit 1 above the aim."""
    tiny = "--tiny" in arguments
    dim, gaussians = (16, 5) if tiny else (512, 150)
    peaks = []
    for kind, values in [(kind, values) for kind in KINDS for values in (mixture_density.VALUES, 2**40)]:
        command = [sys.executable, "-m", __spec__.name, kind, str(values), str(dim), str(gaussians)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds, mib = map(float, found)
        few = "a few at a time" if values < 2**40 else "all at once    "
        print(f"{kind:9s} {few} {seconds:6.1f} s {mib:8.0f} MiB", flush=True)
        peaks += [mib] if values < 2**40 else []
        if tiny:
            return
    sys.exit(max(peaks) > AIM)


def measure(kind: str, values: int, dim: int, gaussians: int) -> None:
    """Print the seconds and the MiB of one forward and backward."""
    mixture_density.VALUES = values
    mixture = mixture_density.MixtureDensity(dim, gaussians, *KINDS[kind], 0.01, "positive")
    tokens = torch.randn(8, 64, dim, requires_grad=True)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    began = time.perf_counter()
    mixture(tokens).sum(dim=1).mean().backward()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(seconds, (peak - before) / 2**20)


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--tiny"]):
        main(sys.argv[1:])
    else:
        measure(sys.argv[1], *map(int, sys.argv[2:]))
