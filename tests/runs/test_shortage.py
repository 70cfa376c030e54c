"""What the machine lacks is one line with the way out; any other error stays what it is."""

import errno
import json
import multiprocessing
import os
import warnings

import pytest
import torch

from anomaly_lab.errors import DataError, RunError
from anomaly_lab.methods.nearest import Nearest
from anomaly_lab.runs.shortage import one_line
from tests.support.runs import on_tree, ran
from tests.support.trees import mvtec_tree

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
CUBLAS = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)`, but this "
    "operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2."
)
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
        (
            RuntimeError("put_ does not have a deterministic implementation, but you set 'torch.use"),
            r"^trainer\.deterministic: strict, but put_ has no .* here; give trainer\.deterministic=warn",
        ),
        (RuntimeError(CUBLAS), r"^trainer\.deterministic: strict, but CuBLAS has no deterministic kernel"),
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


@pytest.fixture
def as_before():
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.parametrize("when", ["training", "test"])
def test_an_operation_without_a_deterministic_kernel_ends_a_strict_run_in_one_line(
    when, tmp_path, monkeypatch, as_before
):
    """The one here has none on a CPU either, so the text is what torch says of it."""

    def drawn_anywhere(*arguments):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        return sound(*arguments)

    name = {"training": "collect", "test": "forward"}[when]
    sound = getattr(Nearest, name)
    monkeypatch.setattr(Nearest, name, drawn_anywhere)
    tree = mvtec_tree(tmp_path / "data", train=4)
    wanted = ["model=nearest", *on_tree(tree), "data.image_size=32", "evaluation.overlays=0"]
    line = r"trainer\.deterministic: strict, but put_ has no deterministic kernel here; give "
    with pytest.raises(RunError, match=f"^{line}") as caught:
        ran(tmp_path, *wanted, "trainer.deterministic=strict")
    assert "\n" not in str(caught.value)
    (path,) = tmp_path.glob("runs/*/*/*/*/manifest.json")
    assert json.loads(path.read_text())["error"].startswith("RunError: trainer.deterministic: strict")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "put_ does not have a deterministic implementation")
        assert ran(tmp_path, *wanted, "trainer.deterministic=warn")[0]["image_auroc"] > 0
