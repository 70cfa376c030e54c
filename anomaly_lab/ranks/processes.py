"""Further ranks on this machine: processes of their own, which do one job and end with it.

They are not started by Lightning, which gives each the whole command line again: of a sweep each would do all
jobs. They get the one job, composed and checked, and nothing else.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import final

from anomaly_lab.errors import RunError
from anomaly_lab.ranks.seats import WAY_ON, Other, Seat

BEGIN = "from anomaly_lab.ranks.serving import serve; serve()"


@final
class Process(Other):
    """A rank whose standard input tells it its seat, and whose standard output tells how it ended."""

    def __init__(self, seat: Seat, port: int) -> None:
        self.name = f"rank {seat.rank} of {seat.size}"
        # What torch says by itself of a lost connection the first rank says in a line.
        environment = os.environ | {"TORCH_CPP_LOG_LEVEL": "FATAL", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(  # noqa: S603 - all of it is ours
            [sys.executable, "-c", BEGIN, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, seat.path))},
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died, which is seen later
            self.process.stdin.write(f"{seat.text()}\n")
            self.process.stdin.flush()
        self.said = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said = self.process.stdout.read()

    def over(self) -> bool:
        """Say whether the process has ended."""
        return self.process.poll() is not None

    def failure(self) -> Exception | None:
        """Return why it ended before its work was done, or None."""
        code = self.process.poll()
        if not code:
            return None
        self.reader.join(1)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return self.told(self.said) or RunError(f"{self.name} {how}; {WAY_ON}")

    def end(self) -> None:
        """Kill it if it lives, and forget it."""
        if not self.over():
            self.process.kill()
        self.process.wait()
        self.reader.join(1)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
