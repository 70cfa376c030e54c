"""W&B without a server, and reading what it wrote."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take W&B's settings and keys away; leave no process of it behind."""
    import wandb

    for name in filter(lambda name: name.startswith("WANDB_"), list(os.environ)):
        monkeypatch.delenv(name)
    places = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "CACHE", "DATA")}
    safe = {
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONSOLE": "off",
        "NETRC": "none",
    }
    for name, value in {**places, **safe}.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # settings are read once
    yield
    wandb.teardown()
    children = [
        child for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()
    ]
    assert not [child for child in children if "wandb" in Path("/proc", child, "cmdline").read_text()]


def records(path: Path) -> Iterator[Any]:
    """Read a .wandb file: 7 bytes, then LevelDB's log format, blocks of 32 KiB, 7 bytes before a fragment."""
    from wandb.proto import wandb_internal_pb2

    (file,) = path.glob("*.wandb")
    data, position, message = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole, or its last fragment
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def read(folder: Path) -> dict[str, Any]:
    """Return what one W&B folder says of its run; a value of a dictionary has a dotted name."""
    import wandb

    # Finishing a run does not wait for the last bytes of its file; the end of the service does.
    wandb.teardown()
    content: dict[str, Any] = {"history": [], "summary": {}, "exit_code": None}
    for record in records(folder):
        if record.HasField("run"):
            content["run"] = record.run
            content["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("history"):
            content["history"].append(values(record.history.item))
        elif record.HasField("summary"):
            content["summary"] |= values(record.summary.update)
        elif record.HasField("exit"):
            content["exit_code"] = record.exit.exit_code
    return content


def values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def folders(path: Path) -> list[Path]:
    return sorted((path / "wandb").glob("offline-run-*"))
