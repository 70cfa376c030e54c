"""One thread each: tensors of tests are small, and waiting threads cost more than they gain."""

import atexit
import gc
import logging
import os
import pickle
import runpy
import shutil
import sys
import tempfile
import warnings
from typing import Any, TextIO

import pytest
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ANOMALY_LAB_CACHE"] = tempfile.mkdtemp(prefix="anomaly-lab-tests-")
atexit.register(shutil.rmtree, os.environ["ANOMALY_LAB_CACHE"], ignore_errors=True)


class _Remembering:
    """Stands for OmegaConf where Hydra reads a file: the same file is read once by each process of the tests.

    A third of the time of a thousand composed configs goes into reading the same thirty files.
    """

    def __init__(self) -> None:
        self.read: dict[tuple[str, int, int, int], bytes] = {}

    def load(self, file: TextIO) -> Any:
        status = os.fstat(file.fileno())
        key = (os.path.realpath(file.name), status.st_mtime_ns, status.st_size, status.st_ino)
        if key not in self.read:
            self.read[key] = pickle.dumps(OmegaConf.load(file))
        return pickle.loads(self.read[key])


Plugins.instance()  # executes both modules anew
file_config_source.OmegaConf = importlib_resources_config_source.OmegaConf = _Remembering()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", help="where the tests marked gpu compute: cuda or cpu")


def pytest_collection_finish() -> None:
    """Spare the collector the million objects of the libraries, which it would walk again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_log():
    """Take away the handlers that a command line in this process left: they write to what was captured."""
    handlers = logging.root.handlers[:]
    level = logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def door(monkeypatch, capfd):
    """Return what runs a module as ``python -m`` does, without the seconds that a process takes to begin.

    It returns the exit code, what was said and the errors.
    """

    def run(words, *arguments):
        module, *verb = words
        monkeypatch.setattr(sys, "argv", [module, *verb, *arguments])
        # An earlier command line in this process set it, which asks for tracebacks.
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr("anomaly_lab.__main__.TRACEBACKS", False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules")  # runpy's own
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run
