"""The ranks of an outer launcher: the first one puts each job where all see it, the others look there."""

import os
import re
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, final

from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from anomaly_lab.errors import RunError, Terminated
from anomaly_lab.ranks.outer import Launched
from anomaly_lab.ranks.seats import POLL, Other, Seat, worked
from anomaly_lab.ranks.serving import silence

PATIENCE = timedelta(hours=1)  # until the processes have found each other
ENDS = 10.0  # seconds that the others may take to see that all is over


@final
class _Meeting:
    """Where the ranks of this process's launcher meet, once they did."""

    store: Any = None
    jobs = 0  # that were put there


def led(place: Launched, answer: Callable[[], int]) -> int:
    """Return the exit code of ``answer``, whose runs the other ranks share."""
    _Meeting.store = store = _met(place)
    try:
        return answer()
    finally:
        store.set("end", "")
        gone = [f"gone {rank}" for rank in range(1, place.size)]
        deadline = time.monotonic() + ENDS
        while time.monotonic() < deadline and not store.check(gone):
            time.sleep(POLL)


def follow(place: Launched) -> int:
    """Do this rank's share of each job until the first one is done with all; return the exit code."""
    silence()
    job = 0
    try:
        store = _met(place)
        while not store.check(["end"]):
            if not store.check([f"job {job}"]):
                time.sleep(POLL)
                continue
            seat = Seat.of(store.get(f"job {job}").decode())
            seat = seat._replace(rank=place.rank, local_rank=place.local_rank)
            said = worked(seat, _of_job(store, job))
            store.set(f"said {job} {place.rank}", said)
            job += 1
        store.set(f"gone {place.rank}", "")
    except dist.DistError:  # the first rank is gone, and told why if it could
        return 1
    except (KeyboardInterrupt, Terminated):  # as it is told, too
        return 143
    return 0


def published(seat: Seat) -> tuple[Any, list[Other]]:
    """Give a job to the other ranks, as the first one; return where they meet for it, and who they are.

    Args:
        seat: that of the first rank, from which those of the others differ in their ranks.
    """
    store = _Meeting.store
    if store is None:
        raise RunError("a launcher of jobs does not go with a launcher of ranks; leave hydra/launcher out")
    job = _Meeting.jobs
    _Meeting.jobs += 1
    store.set(f"job {job}", seat.text())
    return _of_job(store, job), [Follower(store, job, rank, seat.size) for rank in range(1, seat.size)]


@final
class Follower(Other):
    """A rank that a launcher has started, in one job."""

    def __init__(self, store: Any, job: int, rank: int, size: int) -> None:
        self.store = store
        self.key = f"said {job} {rank}"
        self.name = f"rank {rank} of {size}"

    def over(self) -> bool:
        """Say whether it has told how the job ended."""
        return bool(self.store.check([self.key]))

    def failure(self) -> Exception | None:
        """Return the error that it told of, or None."""
        return self.told(self.store.get(self.key).decode()) if self.over() else None

    def end(self) -> None:
        """It finds out by itself, as the others are gone from the job."""


def _of_job(store: Any, job: int) -> Any:
    return dist.PrefixStore(f"job {job}", store)  # type: ignore[attr-defined]


def _met(place: Launched) -> Any:
    """Return the store of all ranks; with torchrun that of its agent, else one that the first rank opens."""
    name = "anomaly_lab"
    if place.by == "srun":
        job, step = (int(os.environ.get(f"SLURM_{part}_ID", "0")) for part in ("JOB", "STEP"))
        name = f"anomaly_lab {job}.{step}"  # so that nobody takes the work of another step
        nodes = os.environ.get("SLURM_STEP_NODELIST", socket.gethostname())
        os.environ.setdefault("MASTER_ADDR", first_host(nodes))
        # Of two jobs, or two steps of a job, on a machine each has its port.
        os.environ.setdefault("MASTER_PORT", str(15000 + (31 * job + step) % 10000))
        os.environ |= {"RANK": str(place.rank), "WORLD_SIZE": str(place.size)}
    store, _, _ = next(iter(rendezvous("env://", place.rank, place.size, timeout=PATIENCE)))
    return dist.PrefixStore(name, store)  # type: ignore[attr-defined]


def first_host(nodes: str) -> str:
    """Return the first host of a list as SLURM writes it: ``a[003-007,9],b1`` is a003."""
    found = re.match(r"([^\[,]+)(?:\[([^,\-\]]+))?", nodes)
    assert found is not None, nodes
    return found[1] + (found[2] or "")
