"""Every benchmark in turn: ``make bench``; each in a process of its own.

``python -m tests.bench --tiny`` runs them all in this process, on inputs of which the numbers say nothing and
without any peer, to see that they still run.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

FILES = sorted(Path(__file__).parent.glob("bench_*.py"))


def main() -> None:
    """Run them all; exit 1 if one failed."""
    failed = []
    for file in FILES:
        print(f"== {file.stem}", flush=True)
        if "--tiny" in sys.argv:
            import_module(f"tests.bench.{file.stem}").main(["--tiny"])
        elif subprocess.run([sys.executable, "-m", f"tests.bench.{file.stem}"], check=False).returncode:
            failed.append(file.stem)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
