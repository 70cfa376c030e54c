"""Every benchmark in turn, each in a process of its own: ``make bench``."""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run them all; exit 1 if one failed."""
    failed = []
    for file in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"== {file.stem}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.bench.{file.stem}"], check=False).returncode:
            failed.append(file.stem)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
