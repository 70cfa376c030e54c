"""What the machine lacks is one line with the way out; any other error stays what it is."""

import errno
import multiprocessing
import os

import pytest
import torch

from anomaly_lab.errors import DataError, RunError
from anomaly_lab.runs.shortage import one_line

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
WORKER = "Caught RuntimeError in DataLoader worker process 0.\nTraceback:\nRuntimeError: unable to write to"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), r"^too little memory \(MemoryError\); give a smaller data\.batch_size"),
        (
            RuntimeError(f"{CPU} to allocate 9 bytes.\nmore"),
            r"^too little memory \(can't allocate memory: you",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), r"^too little memory \(CUDA out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "^too little memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "^too little memory"),
        (RuntimeError("worker (pid 7) is killed by signal: Bus error. It"), r"^data\.workers: .*/dev/shm;"),
        (RuntimeError(f"{WORKER} file </torch_1_2>: No space left on device (28)"), r"give data\.workers=0"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/d/a"), "^/d/a: has no room left; make room"),
    ],
)
def test_each_shortage_is_one_line(error, line):
    with pytest.raises(RunError, match=line) as caught, one_line():
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("shape"), DataError("out of memory.png"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, one_line():
        raise error
    assert caught.value is error


def test_what_processes_share_and_cannot_be_made_is_named(monkeypatch):
    """As in a container whose /dev/shm is read-only."""

    def refused(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refused)
    with pytest.raises(RunError, match=r"^data\.workers: .*give data\.workers=0"), one_line():
        multiprocessing.Lock()
