"""Where a number comes from: code, versions, machine, command."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "lightning",
    "timm",
    "numpy",
    "scipy",
    "albumentations",
    "opencv-python-headless",
    "hydra-core",
)
CODE = ("anomaly_lab", "conf", "experiments/*.yaml")  # what else lies in a checkout changes no number

# The command that began it all, for the processes that a launcher starts: their own says nothing.
COMMAND = "ANOMALY_LAB_COMMAND"


def command() -> str:
    """Return the command line of this process."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def provenance(device: str) -> dict[str, object]:
    """Return what the manifest says of code, packages, machine and command, as plain types."""
    changes = _git("status", "--porcelain", "--", *CODE)
    # Kernels, and so the last bits, depend on the instruction set and the number of threads.
    instructions = torch.backends.cpu.get_cpu_capability()
    processor = f"{platform.machine()} {instructions} x {torch.get_num_threads()} threads"
    return {
        "command": os.environ.get(COMMAND) or command(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{device}: {processor}",
        "host": platform.node(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_version = cache(importlib.metadata.version)  # which reads through folders


@cache  # the code that runs is that of the start, whatever happens to the checkout while a sweep goes on
def _git(*arguments: str) -> str | None:
    """Return git's answer about the checkout that this package lies in.

    None if it lies in none of its own.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - all of it is ours
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
