"""Ranks that another program starts, on one machine or on several: torchrun, or SLURM's srun.

Each of them is given the whole command line. The first one does what that says, as if it were alone; the
others ask it for their share of one job after another, compose nothing and say nothing.
"""

import os
import re
import sys
from typing import NamedTuple

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


class Launched(NamedTuple):
    """Which of the processes of a launcher this one is."""

    rank: int
    size: int
    local_rank: int
    by: str


def launched() -> Launched | None:
    """Return where a launcher has put this process; None if there is none, or for this process alone.

    The tasks of an srun are ranks only if the command line has ``trainer.nodes=``: else each does all of it,
    as tasks may share a sweep.
    """
    if all(name in os.environ for name in TORCHRUN):
        rank, size, local, _ = (int(os.environ[name]) for name in TORCHRUN)
        return Launched(rank, size, local, "torchrun") if size > 1 else None
    named = any(re.match(r"\+*trainer\.nodes=", word) for word in sys.argv[1:])
    if named and all(name in os.environ for name in SLURM):
        rank, size, local = (int(os.environ[name]) for name in SLURM)
        return Launched(rank, size, local, "srun") if size > 1 else None
    return None
