"""Nothing goes to the network unasked: a whole run with every way out closed."""

import subprocess
import sys

import pytest

from tests.support.runs import on_tree
from tests.support.trees import mvtec_tree

CLOSED = """
import socket, sys

def closed(*_, **__):
    raise OSError("the network is closed")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = closed
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = closed
from anomaly_lab.__main__ import main
sys.exit(main())
"""


@pytest.mark.long
def test_an_epoch_with_sockets_blocked(tmp_path):
    root = mvtec_tree(tmp_path / "data", size=(64, 64))
    small = ["model=draem_small", "data.image_size=64", "data.batch_size=4", "trainer.max_steps=2"]
    command = [sys.executable, "-c", CLOSED, *small, *on_tree(root), f"runs={tmp_path}/runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "image_auroc" in done.stdout
    assert "the network is closed" not in done.stdout + done.stderr
