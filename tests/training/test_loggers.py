"""Mirrors: what W&B and TensorBoard were given is read back from the files that they wrote."""

import json
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.training.loggers.base import Mirror
from tests.support.runs import composed

STEPS = 5
CONFIG = {"seed": 3, "tag": "run", "data": {"category": "nut", "milestones": [0.8, 0.9]}, "entity": None}


def chosen(option: str, **settings: Any) -> Mirror:
    """Return the mirror of conf/logger/OPTION.yaml with some keys set."""
    return instantiate(composed(f"logger={option}").logger, **settings)


class Line(lightning.LightningModule):
    """Fits a line; it keeps the losses that it logs, and breaks down before a given step."""

    def __init__(self, breaks_at: int | None = None) -> None:
        super().__init__()
        self.layer, self.breaks_at, self.losses = torch.nn.Linear(1, 1), breaks_at, []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.breaks_at:
            raise ZeroDivisionError("broken off")
        loss = (self.layer(batch) - 2 * batch).square().mean()
        self.losses.append(loss.item())
        self.log_dict({"loss/mse": loss.detach()})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def job(
    mirror: Mirror, path: Path, module: Line, metrics: dict[str, float], config: dict[str, Any] = CONFIG
) -> None:
    """Do what a run does with a mirror: open it, train, log the final metrics."""
    path.mkdir(parents=True, exist_ok=True)
    data = DataLoader(torch.arange(1.0, STEPS + 1)[:, None])
    with mirror.opened(path, config) as loggers:
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=loggers, log_every_n_steps=1, **quiet
        )
        trainer.fit(module, data)
        for logger in loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{advice}")
    for advice in (
        "The 'train_dataloader' does not have many workers",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


# ---- W&B


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take W&B's settings and keys away; leave no process of it behind."""
    import wandb

    for name in filter(lambda name: name.startswith("WANDB_"), list(os.environ)):
        monkeypatch.delenv(name)
    folders = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "CACHE", "DATA")}
    safe = {
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONSOLE": "off",
        "NETRC": "none",
    }
    for name, value in {**folders, **safe}.items():
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
    """Return what one W&B folder says of its run."""
    import wandb

    # Finishing a run does not wait for the last bytes of its file; the end of the service does.
    wandb.teardown()
    content: dict[str, Any] = {"history": [], "summary": {}, "exit_code": None}
    for record in records(folder):
        if record.HasField("run"):
            content["run"] = record.run
            content["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("history"):
            content["history"].append(
                {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            )
        elif record.HasField("summary"):
            content["summary"] |= {
                item.nested_key[0]: json.loads(item.value_json)
                for item in record.summary.update
                if item.nested_key
            }
        elif record.HasField("exit"):
            content["exit_code"] = record.exit.exit_code
    return content


def folders(path: Path) -> list[Path]:
    return sorted((path / "wandb").glob("offline-run-*"))


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("anomaly_lab")]


def curve(content: dict[str, Any], name: str) -> list[tuple[int, float]]:
    return [(row["trainer/global_step"], row[name]) for row in content["history"] if name in row]


@pytest.mark.usefixtures("offline")
def test_wandb_keeps_config_curve_metrics_and_success(tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomaly_lab")
    path, module = tmp_path / "runs" / "run-01234567-seed3", Line()
    job(
        chosen("wandb", group="table 1", tags=["a", "b"]),
        path,
        module,
        {"image_auroc": 0.75, "pixel_auroc": 0.5},
    )
    (folder,) = folders(path)
    content = read(folder)
    assert {key: content["config"][key] for key in CONFIG} == CONFIG
    run = content["run"]
    assert (run.project, run.entity, run.run_group, list(run.tags)) == (
        "anomaly_lab",
        "",
        "table 1",
        ["a", "b"],
    )
    assert run.display_name == path.name
    assert curve(content, "loss/mse") == list(enumerate(module.losses))
    assert len(module.losses) == STEPS
    assert curve(content, "image_auroc") == [(STEPS, 0.75)]
    assert (content["summary"]["image_auroc"], content["summary"]["pixel_auroc"]) == (0.75, 0.5)
    assert content["summary"]["loss/mse"] == module.losses[-1]
    assert content["exit_code"] == 0
    assert ours(caplog) == [
        f"W&B: offline (it knows no key); to upload: wandb sync {path}/wandb/offline-run-*"
    ]


def test_the_tags_of_a_run_are_those_of_wandb():
    assert instantiate(composed("logger=wandb", "tags=[a,b]").logger, _convert_="all").tags == ["a", "b"]
    assert composed("logger=wandb").logger.tags == []


@pytest.mark.usefixtures("offline")
def test_crash_marks_the_wandb_run_as_failed(tmp_path):
    module = Line(breaks_at=3)
    with pytest.raises(ZeroDivisionError, match="broken off"):
        job(chosen("wandb"), tmp_path, module, {"image_auroc": 1.0})
    (folder,) = folders(tmp_path)
    content = read(folder)
    assert content["exit_code"] == 1
    assert curve(content, "loss/mse") == list(enumerate(module.losses))
    assert "image_auroc" not in content["summary"]


@pytest.mark.usefixtures("offline")
def test_each_job_of_a_sweep_has_its_own_wandb_run(tmp_path):
    for seed in (0, 1):
        job(chosen("wandb"), tmp_path / f"seed{seed}", Line(), {"image_auroc": seed / 4}, {"seed": seed})
    contents = [read(folders(tmp_path / f"seed{seed}")[0]) for seed in (0, 1)]
    assert [content["config"]["seed"] for content in contents] == [0, 1]
    assert [content["summary"]["image_auroc"] for content in contents] == [0.0, 0.25]
    assert [content["run"].display_name for content in contents] == ["seed0", "seed1"]
    assert contents[0]["run"].run_id != contents[1]["run"].run_id
    assert [len(curve(content, "loss/mse")) for content in contents] == [STEPS, STEPS]


@pytest.mark.usefixtures("offline")
def test_run_taken_up_again_keeps_its_wandb_id(tmp_path):
    with pytest.raises(ZeroDivisionError):
        job(chosen("wandb"), tmp_path, Line(breaks_at=2), {})
    time.sleep(1.1)  # W&B's folders carry the second
    job(chosen("wandb"), tmp_path, Line(), {"image_auroc": 1.0})
    first, second = map(read, folders(tmp_path))
    assert first["run"].run_id == second["run"].run_id
    assert [first["exit_code"], second["exit_code"]] == [1, 0]
    assert [len(curve(part, "loss/mse")) for part in (first, second)] == [2, STEPS]


@pytest.mark.usefixtures("offline")
def test_run_outlives_the_service_of_wandb(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "anomaly_lab")

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the service died")

    class Breaking(Line):
        def on_train_batch_end(self, *_: Any) -> None:
            if len(self.losses) == 2:
                broken_parts.setattr("wandb.wandb_run.Run.log", broken)
                broken_parts.setattr("wandb.wandb_run.Run.finish", broken)

    module = Breaking()
    with monkeypatch.context() as broken_parts:
        job(chosen("wandb"), tmp_path / "a", module, {"image_auroc": 1.0})
    assert len(module.losses) == STEPS
    assert [message.partition(" (")[0] for message in ours(caplog)[1:]] == [
        "W&B shows no more of this run",
        "W&B did not finish",
    ]
    job(chosen("wandb"), tmp_path / "b", Line(), {"image_auroc": 0.5})
    assert read(folders(tmp_path / "b")[0])["exit_code"] == 0


@pytest.mark.long
def test_libraries_load_when_chosen_and_offline_wandb_reaches_for_no_server(tmp_path):
    script = f"""
import pathlib, sys
import anomaly_lab.training.loggers.base
print(sorted({{"wandb", "tensorboard"}} & set(sys.modules)))
import anomaly_lab.training.loggers.tensorboard
print("wandb" in sys.modules)
from anomaly_lab.training.loggers.wandb import Wandb
mirror = Wandb(project="p", entity=None, group=None, tags=[], mode="auto")
with mirror.opened(pathlib.Path({str(tmp_path)!r}), {{}}) as (logger,):
    logger.log_metrics({{"loss": 1.0}}, step=0)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        proxies = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": "", "no_proxy": ""}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment |= proxies | {"WANDB_BASE_URL": address, "HOME": str(tmp_path), "NETRC": "none"}
        command = [sys.executable, "-c", script]
        process = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=100
        )
        with pytest.raises(TimeoutError):
            server.accept()
    assert process.stdout.splitlines()[:2] == ["[]", "False"]
    assert read(folders(tmp_path)[0])["exit_code"] == 0


@pytest.mark.usefixtures("offline")
def test_disabled_wandb_writes_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomaly_lab")
    module = Line()
    job(chosen("wandb", mode="disabled"), tmp_path, module, {"image_auroc": 1.0})
    assert len(module.losses) == STEPS
    assert (folders(tmp_path), ours(caplog)) == ([], [])


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("environment", "machine", "mode", "wanted"),
    [
        ({}, None, "auto", "offline"),
        ({}, "elsewhere.example", "auto", "offline"),
        ({}, "api.wandb.ai", "auto", None),
        ({"WANDB_API_KEY": 40 * "a"}, None, "auto", None),
        ({"WANDB_MODE": "disabled"}, None, "auto", None),
        ({}, None, "online", "online"),
        ({"WANDB_API_KEY": 40 * "a"}, None, "offline", "offline"),
    ],
)
def test_wandb_that_does_not_open_is_one_line(tmp_path, monkeypatch, environment, machine, mode, wanted):
    import wandb

    def refuse(**arguments: Any) -> None:
        assert arguments["mode"] == wanted
        raise wandb.errors.CommError("no route\nand more")

    for name, value in {**environment, "NETRC": str(tmp_path / "netrc")}.items():
        monkeypatch.setenv(name, value)
    if machine is not None:
        (tmp_path / "netrc").write_text(f"machine {machine} login user password {40 * 'a'}\n")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(RunError) as error, chosen("wandb", mode=mode).opened(tmp_path, {}):
        pass
    assert (
        str(error.value)
        == "logger=wandb: did not open (CommError: no route); give logger.mode=offline or logger=csv"
    )


# ---- TensorBoard


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "tensorboard")).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_curve_and_metrics(tmp_path):
    module = Line()
    job(chosen("tensorboard"), tmp_path, module, {"image_auroc": 0.75})
    found = scalars(tmp_path)
    assert found["loss/mse"] == [(step, pytest.approx(loss)) for step, loss in enumerate(module.losses)]
    assert found["image_auroc"] == [(STEPS, 0.75)]


def test_tensorboard_keeps_what_came_before_a_crash(tmp_path):
    module = Line(breaks_at=3)
    with pytest.raises(ZeroDivisionError):
        job(chosen("tensorboard"), tmp_path, module, {"image_auroc": 1.0})
    assert [step for step, _ in scalars(tmp_path)["loss/mse"]] == [0, 1, 2]


def test_tensorboard_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    from anomaly_lab.training.loggers.tensorboard import TensorBoard

    with pytest.raises(
        ConfigError, match=r"^logger=tensorboard: .*pip install anomaly_lab\[tensorboard\].*logger=csv$"
    ):
        TensorBoard()


# ---- csv


def test_csv_opens_nothing(tmp_path):
    with chosen("csv").opened(tmp_path, CONFIG) as loggers:
        assert loggers == []
    assert list(tmp_path.iterdir()) == []
