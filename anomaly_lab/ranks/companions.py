"""Has further ranks do their share of a job, however they came to be, and watches over them."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, final

from torch import distributed as dist

from anomaly_lab.errors import RunError, UserError
from anomaly_lab.ranks.following import published
from anomaly_lab.ranks.outer import launched
from anomaly_lab.ranks.processes import Process
from anomaly_lab.ranks.seats import POLL, WAY_ON, Other, Seat, joined, meet, threads_of
from anomaly_lab.ranks.serving import LOCAL

SETTLES = 5.0  # seconds that a lost connection is given to be explained by the end of a rank
STUCK = 20.0  # seconds after a rank's end in which the first one should have noticed
ENDS = 60.0  # seconds that the others may take to end once all is done
LOST = re.compile(r"gloo|nccl|connection|socket|process ?group|store", re.IGNORECASE)


@contextmanager
def accompanied(size: int, local_size: int, device: str, work: str, job: dict[str, Any]) -> Iterator[None]:
    """Be the first of ``size`` ranks while the body runs; the others do ``work`` with ``job``.

    Args:
        size: 1 means that nobody else is there.
        local_size: those of them on each machine; fewer than all want a launcher.
        device: ``cpu`` or ``cuda``, of each.
        work: MODULE:FUNCTION of what the others do, with a `Seat` and a store.
        job: what they are told, plain types.

    Raises:
        RunError: another rank ended before its work was done.
    """
    if size == 1:
        yield
        return
    with threads_of(local_size) as threads:
        store, others = gathered(Seat(0, size, 0, device, threads, sys.path, work, job))
        watch = Watch(others)
        try:
            meet(store, 0, size, others)
            with joined(store, 0, size, device, 0):
                yield
            watch.waits_for_all()
        except Exception as error:
            if isinstance(error, UserError) or not (cause := watch.explains(error)):
                raise
            raise cause from error
        finally:
            watch.ended.set()
            for one in others:
                one.end()


def gathered(seat: Seat) -> tuple[Any, list[Other]]:
    """Return a store and the other ranks: those of a launcher, or processes that are started here."""
    if launched() is not None:
        return published(seat)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        LOCAL, 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=10)
    )
    seats = (seat._replace(rank=rank, local_rank=rank) for rank in range(1, seat.size))
    return store, [Process(one, store.port) for one in seats]


@final
class Watch:
    """Sees to it that the end of a rank ends the run, also where the first one cannot hear of it."""

    def __init__(self, others: Sequence[Other], leave: Callable[[int], None] = os._exit) -> None:
        self.others = others
        self.leave = leave
        self.ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def failure(self) -> Exception | None:
        """Return the first failure of a rank that is known."""
        return next(filter(None, (one.failure() for one in self.others)), None)

    def explains(self, error: Exception) -> Exception | None:
        """Return what of another rank lies behind an error here, if anything does.

        A rank whose loss was noticed is given the time to end and to be heard of.
        """
        lost = bool(LOST.search(str(error)))
        deadline = time.monotonic() + SETTLES
        while (found := self.failure()) is None and lost and time.monotonic() < deadline:
            time.sleep(POLL)
        if found is None and lost and all(not one.over() for one in self.others):
            line = next(iter(str(error).splitlines()), "")
            found = RunError(f"another rank was lost ({line[:120]}); {WAY_ON}")
        return found

    def waits_for_all(self) -> None:
        """Wait for the others' end once all is done."""
        deadline = time.monotonic() + ENDS
        while time.monotonic() < deadline and not all(one.over() for one in self.others):
            time.sleep(POLL)
        if (failure := self.failure()) is not None:
            raise failure

    def _watch(self) -> None:
        """Where a lost rank is not noticed, as in NCCL, break what is waited for; then break off."""
        while not self.ended.wait(1.0):
            failure = self.failure()
            if failure is None:
                continue
            if self.ended.wait(STUCK):
                return
            with suppress(Exception):
                dist.distributed_c10d._abort_process_group()
            if self.ended.wait(STUCK):
                return
            print(f"anomaly_lab: error: {str(failure).splitlines()[0]}", file=sys.stderr, flush=True)
            self.leave(1)
            return
