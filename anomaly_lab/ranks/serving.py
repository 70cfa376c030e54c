"""What a process does that is a further rank of one job, from its first line to its last."""

import logging
import os
import signal
import sys
import threading
import warnings
from datetime import timedelta
from typing import NoReturn

from torch import distributed as dist

from anomaly_lab.ranks.seats import Seat, worked

LOCAL = "127.0.0.1"


def serve() -> NoReturn:
    """Do the job that standard input tells, and end; standard output gets how that went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first rank hears it
    with os.fdopen(os.dup(1), "w") as report:
        os.dup2(2, 1)
        seat = Seat.of(sys.stdin.readline())
        threading.Thread(target=_follow, daemon=True).start()
        silence()
        store = dist.TCPStore(  # type: ignore[attr-defined]
            LOCAL, int(sys.argv[1]), is_master=False, timeout=timedelta(minutes=10)
        )
        said = worked(seat, store)
        report.write(said)
    os._exit(said != "{}")  # not by way of libraries whose last words nobody wants


def silence() -> None:
    """Leave what there is to say to the first rank."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _follow() -> None:
    """End at once when the first rank does, however it does: its end of the pipe closes."""
    # Not by sys.stdin, whose lock a loader's worker, forked from here, would wait for.
    while os.read(0, 2**12):
        pass
    os._exit(1)
