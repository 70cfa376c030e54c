"""Where a number comes from: code, versions, machine, command."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

PACKAGES = ("torch", "lightning", "timm", "numpy", "scipy", "albumentations", "opencv-python-headless", "hydra-core")


def provenance() -> dict[str, object]:
    """Return what the manifest says of code, packages, machine and command, as plain types."""
    cuda = torch.cuda.is_available()
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": torch.cuda.get_device_name()
        if cuda
        else f"{platform.processor() or platform.machine()} x {torch.get_num_threads()} threads",
        "host": platform.node(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    """Return git's answer about the checkout that this package lies in; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
