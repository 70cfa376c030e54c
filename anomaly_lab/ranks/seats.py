"""What a further rank of a run is told, what it says of how it ended, and how all of them meet."""

import importlib
import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from anomaly_lab.errors import RunError, UserError
from anomaly_lab.ranks import here

POLL = 0.05  # seconds between two looks
WAY_ON = "the same command goes on from what was saved, if anything was"


class Seat(NamedTuple):
    """One rank's part in one job."""

    rank: int
    size: int
    local_rank: int  # its number on its machine
    device: str  # cpu or cuda; there rank k of a machine computes on GPU k
    threads: int
    path: list[str]  # where modules are found
    work: str  # MODULE:FUNCTION, which is called with the seat and a store
    job: dict[str, Any]  # what that is told, plain types

    @classmethod
    def of(cls, text: str) -> "Seat":
        """Return what `text` was made of."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return it as a line."""
        return json.dumps(self._asdict())


class Other(ABC):
    """A further rank, as the first one sees it."""

    name: str  # rank R of N

    @abstractmethod
    def over(self) -> bool:
        """Say whether it has ended, one way or another."""

    @abstractmethod
    def failure(self) -> Exception | None:
        """Return why it ended before its work was done, or None."""

    @abstractmethod
    def end(self) -> None:
        """See to it that it does nothing any more."""

    def told(self, said: str) -> Exception | None:
        """Return the error that a rank speaks of (`worked`), or None."""
        found = json.loads(said) if said else {}
        if "line" in found:
            return RunError(f"{self.name}: {found['line']}")
        return RuntimeError(f"{self.name} failed\n{found['traceback']}") if "traceback" in found else None


def worked(seat: Seat, store: Any) -> str:
    """Do what a seat says; return what is to be told of how that ended: "{}" if it was done."""
    try:
        sys.path[:] = seat.path
        torch.set_num_threads(seat.threads)
        module, _, function = seat.work.partition(":")
        work: Callable[[Seat, Any], None] = getattr(importlib.import_module(module), function)
        work(seat, store)
    except UserError as error:
        return json.dumps({"line": str(error).splitlines()[-1]})
    except Exception:  # whatever it is, the first rank tells of it
        return json.dumps({"traceback": traceback.format_exc()})
    return "{}"


@contextmanager
def seated(seat: Seat, store: Any) -> Iterator[None]:
    """Be a further rank while the body runs, once all are ready."""
    meet(store, seat.rank, seat.size)
    with joined(store, seat.rank, seat.size, seat.device, seat.local_rank):
        yield


@contextmanager
def joined(store: Any, rank: int, size: int, device: str, local_rank: int) -> Iterator[None]:
    """Be one of the ranks that met at a store while the body runs."""
    where = torch.device(device, local_rank) if device == "cuda" else torch.device(device)
    with here.joined(dist.PrefixStore("group", store), rank, size, local_rank, where):  # type: ignore[attr-defined]
        yield


def meet(store: Any, rank: int, size: int, others: Sequence[Other] = ()) -> None:
    """Wait until all ranks are ready, however long one needs, unless one fails before."""
    store.set(f"ready {rank}", "")
    wanted = [f"ready {other}" for other in range(size)]
    while not store.check(wanted):
        for failure in filter(None, (one.failure() for one in others)):
            raise failure
        time.sleep(POLL)


@contextmanager
def threads_of(local_size: int) -> Iterator[int]:
    """Share the cores between the ranks of a machine, unless OMP_NUM_THREADS says what each may take."""
    before = torch.get_num_threads()
    each = before if "OMP_NUM_THREADS" in os.environ else max(1, before // local_size)
    torch.set_num_threads(each)
    try:
        yield each
    finally:
        torch.set_num_threads(before)
