"""What came of the jobs of a sweep, also where a launcher does them in processes of their own."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, final
from uuid import uuid4

from anomaly_lab.runs.lock import SWEEP, Holder

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One job."""

    given: list[str]  # its overrides
    metrics: dict[str, float]  # empty where it failed
    code: int  # that a process with this job alone would end with


@final
class Jobs:
    """Takes in jobs, in this process or in one that a launcher handed a copy of this to.

    The copies write to a folder, which processes of another machine may lack: what they did is then unknown
    here, and stands in their run directories alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = Holder.this()
        self.own: list[Job] = []

    def add(self, number: int, cell: Job) -> None:
        """Take in the job of this number."""
        if Holder.this() == self.process:
            self.own.append(cell)
            return
        file = self.folder / f"{number:06d}.json"
        try:
            file.with_suffix(".part").write_text(json.dumps(cell), encoding="utf-8")
            file.with_suffix(".part").replace(file)
        except OSError as error:
            log.warning("%s: cannot be written (%s); what this job did stands in its run", file, error)

    def all(self) -> list[Job]:
        """Return the jobs that were done until now, in the order of the sweep."""
        texts = (file.read_text(encoding="utf-8") for file in sorted(self.folder.glob("*.json")))
        return self.own + [Job(*json.loads(text)) for text in texts]


@contextmanager
def swept() -> Iterator[Jobs]:
    """Collect jobs while the body runs; whatever processes it starts know that they are of one sweep."""
    before = os.environ.get(SWEEP)
    os.environ[SWEEP] = uuid4().hex
    try:
        with tempfile.TemporaryDirectory(prefix="anomaly-lab-sweep-", ignore_cleanup_errors=True) as folder:
            yield Jobs(Path(folder))
    finally:
        if before is None:
            del os.environ[SWEEP]
        else:
            os.environ[SWEEP] = before
