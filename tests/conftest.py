"""One thread each: tensors of tests are small, and waiting threads cost more than they gain."""

import atexit
import logging
import os
import shutil
import tempfile

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ANOMALY_LAB_CACHE"] = tempfile.mkdtemp(prefix="anomaly-lab-tests-")
atexit.register(shutil.rmtree, os.environ["ANOMALY_LAB_CACHE"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", help="where the tests marked gpu compute: cuda or cpu")


@pytest.fixture(autouse=True)
def _own_log():
    """Take away the handlers that a command line in this process left: they write to what was captured."""
    handlers = logging.root.handlers[:]
    level = logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
