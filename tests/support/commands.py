"""Command lines in processes of their own that begin at once: forked from a process with the imports done.

Importing the libraries takes eight seconds, which a test of what a process does need not pay each time. What
a test says of the imports themselves, or of the shell, wants a new interpreter.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["anomaly_lab.train", "anomaly_lab.methods.draem", "pytest"])


@contextmanager
def begun(module: str, *arguments: str, said: Path, cwd: Path = CHECKOUT) -> Iterator[ForkServerProcess]:
    """Start ``python -m module arguments`` in a session of its own; it is killed if the body leaves it.

    What it says goes to the file ``said``. It reads the number of threads from the environment that the first
    of them found.
    """
    # A command line in this process has asked for tracebacks, which a new process would show
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    process = SERVER.Process(target=_run, args=(module, arguments, said, cwd, environment))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            kill(process)


def ended(module: str, *arguments: str, said: Path, cwd: Path = CHECKOUT) -> int:
    """Run it to its end; return the exit code, below 0 for a signal."""
    with begun(module, *arguments, said=said, cwd=cwd) as process:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill(process: ForkServerProcess) -> None:
    """Kill it and all that it started, as a machine that goes down would."""
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _run(module: str, arguments: tuple[str, ...], said: Path, cwd: Path, environment: dict[str, str]) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # its own children begin as they do elsewhere
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
