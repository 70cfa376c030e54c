"""The tests marked ``gpu``, in processes of their own."""

import os
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from tests.support.commands import ended

PROCESSES = 12  # that share a device


def run_tests(device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Return how many passed, and what each failure said in one line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        which = (
            ["-k", "nearest and weights and not full"]
            if tiny
            else ["-n", str(min(PROCESSES, os.cpu_count() or 1))]
        )
        words = ["tests/gpu", "-m", "gpu", "--device", device.type, *which, f"--junitxml={file}"]
        said = Path(folder) / "said.txt"
        # A version that warns of another is no failure here.
        ended("pytest", *words, "-W", "default", "--durations=10", said=said)
        print(said.read_text()[-8000:], flush=True)
        if not file.exists():
            return {"passed": 0, "failed": ["pytest itself failed"], "skipped": 0, "seconds": 0.0}
        suite = next(ElementTree.parse(file).getroot().iter("testsuite"))
    failures = {
        case.get("name", ""): (found.get("message") or "").splitlines()
        for case in suite.iter("testcase")
        for found in [*case.iter("failure"), *case.iter("error")]
    }
    skipped = int(suite.get("skipped", 0))
    return {
        "passed": int(suite.get("tests", 0)) - len(failures) - skipped,
        "failed": [f"{name}: {(lines or ['?'])[0][:200]}" for name, lines in failures.items()],
        "skipped": skipped,
        "seconds": float(suite.get("time", 0)),
    }
