"""W&B: what it was given is read back from the files that it wrote."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from anomaly_lab.errors import RunError
from tests.support.boards import ADVICE, CONFIG, METRICS, SIZES, STEPS, Line, chosen, drawn, job, mirrors_of
from tests.support.runs import CHECKOUT, composed
from tests.support.wandb_files import folders, offline, read  # noqa: F401 - a fixture

pytestmark = [pytest.mark.filterwarnings(f"ignore:{advice}") for advice in ADVICE]


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("anomaly_lab")]


def curve(content: dict[str, Any], name: str) -> list[tuple[int, float]]:
    return [(row["trainer/global_step"], row[name]) for row in content["history"] if name in row]


@pytest.mark.usefixtures("offline")
def test_a_wandb_run_has_config_curve_metrics_pictures_table_and_success(tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomaly_lab")
    path, module = tmp_path / "runs" / "run-01234567-seed3", Line()
    pictures = drawn(path)
    job(mirrors_of(path, group="prff_mvtec", wandb=chosen("wandb", "tags=[a,b]")), module, METRICS, pictures)
    (folder,) = folders(path)
    content = read(folder)
    assert {key: content["config"][key] for key in CONFIG} == CONFIG
    assert content["config"]["choices"]["data"] == "mvtec"
    run = content["run"]
    assert (run.project, run.entity, run.run_group, run.job_type, list(run.tags)) == (
        *("anomaly_lab", "", "prff_mvtec", "draem_small"),
        ["a", "b"],
    )
    assert run.display_name == path.name
    assert curve(content, "loss/mse") == list(enumerate(module.losses))
    assert len(module.losses) == STEPS
    assert curve(content, "image_auroc") == [(STEPS, 0.75)]
    summary = content["summary"]
    assert {name: summary[name] for name in METRICS} == METRICS
    assert summary["loss/mse"] == module.losses[-1]
    assert (summary["parameters/total"], summary["parameters/trainable"]) == SIZES
    assert 0 < summary["seconds"] < 100
    assert summary["maps.captions"] == [picture.caption for picture in pictures[:2]]
    assert summary["roc_pr.captions"] == [pictures[2].caption]
    kept = [*summary["maps.filenames"], *summary["roc_pr.filenames"]]
    assert [(folder / "files" / name).read_bytes() for name in kept] == [
        picture.file.read_bytes() for picture in pictures
    ]
    table = json.loads((folder / "files" / summary["per_category.path"]).read_text())
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == {
        "data": "mvtec",
        "category": "nut",
        "model": "draem_small",
        "seed": 3,
        **METRICS,
    }
    assert len(table["data"]) == 1
    assert content["exit_code"] == 0
    assert ours(caplog) == [
        f"W&B: offline (it knows no key); to upload: wandb sync {path}/wandb/offline-run-*"
    ]


def test_the_tags_of_a_run_are_those_of_wandb():
    assert chosen("wandb", "tags=[a,b]").tags == ["a", "b"]
    assert composed("logger=wandb").logger.wandb.tags == []


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("given", "group", "wanted"),
    [("auto", None, ""), ("auto", "sweep", "sweep"), ("null", "sweep", ""), ("mine", "sweep", "mine")],
)
def test_the_group_is_the_sweep_unless_another_is_given(tmp_path, given, group, wanted):
    mirror = chosen("wandb", f"logger.wandb.group={given}")
    job(mirrors_of(tmp_path, group=group, wandb=mirror), Line(), METRICS)
    assert read(folders(tmp_path)[0])["run"].run_group == wanted


@pytest.mark.usefixtures("offline")
def test_crash_marks_the_wandb_run_as_failed(tmp_path):
    module = Line(breaks_at=3)
    with pytest.raises(ZeroDivisionError, match="broken off"):
        job(mirrors_of(tmp_path, wandb=chosen("wandb")), module, METRICS)
    (folder,) = folders(tmp_path)
    content = read(folder)
    assert content["exit_code"] == 1
    assert curve(content, "loss/mse") == list(enumerate(module.losses))
    assert "image_auroc" not in content["summary"]
    assert content["summary"]["parameters/total"] == SIZES[0]


@pytest.mark.usefixtures("offline")
def test_each_job_of_a_sweep_has_its_own_wandb_run(tmp_path):
    for seed in (0, 1):
        mirrors = mirrors_of(tmp_path / f"seed{seed}", {**CONFIG, "seed": seed}, wandb=chosen("wandb"))
        job(mirrors, Line(), {"image_auroc": seed / 4})
    contents = [read(folders(tmp_path / f"seed{seed}")[0]) for seed in (0, 1)]
    assert [content["config"]["seed"] for content in contents] == [0, 1]
    assert [content["summary"]["image_auroc"] for content in contents] == [0.0, 0.25]
    assert [content["run"].display_name for content in contents] == ["seed0", "seed1"]
    assert contents[0]["run"].run_id != contents[1]["run"].run_id
    assert [len(curve(content, "loss/mse")) for content in contents] == [STEPS, STEPS]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("noted", [True, False])
def test_run_taken_up_again_keeps_its_wandb_id(tmp_path, noted):
    with pytest.raises(ZeroDivisionError):
        job(mirrors_of(tmp_path, wandb=chosen("wandb")), Line(breaks_at=2), {})
    if not noted:  # as by a version that kept no such file
        (tmp_path / "dashboards.json").unlink()
    time.sleep(1.1)  # W&B's folders carry the second
    job(mirrors_of(tmp_path, wandb=chosen("wandb")), Line(), METRICS)
    first, second = map(read, folders(tmp_path))
    assert first["run"].run_id == second["run"].run_id
    assert [first["exit_code"], second["exit_code"]] == [1, 0]
    assert [len(curve(part, "loss/mse")) for part in (first, second)] == [2, STEPS]


KILLED = """
import os, pathlib, sys
from tests.support.boards import chosen, mirrors_of
with mirrors_of(pathlib.Path(sys.argv[1]), wandb=chosen("wandb")).opened((1, 1)) as (logger,):
    logger.log_metrics({"loss": 1.0}, step=0)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.long
@pytest.mark.usefixtures("offline")
def test_what_a_killed_worker_left_open_is_marked_as_failed_by_a_start_that_fails_early(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, check=False, cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    known = json.loads((path / "dashboards.json").read_text())["wandb"]
    assert known["open"] is True
    assert read(folders(path)[0])["exit_code"] is None
    time.sleep(1.1)
    with pytest.raises(RunError, match=r"^no data$"), mirrors_of(path, wandb=chosen("wandb")).failing_early():
        raise RunError("no data")
    content = read(folders(path)[1])
    assert (content["run"].run_id, content["exit_code"]) == (known["known_as"], 1)
    assert json.loads((path / "dashboards.json").read_text()) == {"wandb": {**known, "open": False}}


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
        job(mirrors_of(tmp_path / "a", wandb=chosen("wandb")), module, METRICS)
    assert len(module.losses) == STEPS
    assert [message.partition(" (")[0] for message in ours(caplog)[1:]] == [
        "logger=wandb shows no more of this run",
        "logger=wandb did not finish",
    ]
    job(mirrors_of(tmp_path / "b", wandb=chosen("wandb")), Line(), METRICS)
    assert read(folders(tmp_path / "b")[0])["exit_code"] == 0


@pytest.mark.long
def test_libraries_load_when_chosen_and_offline_wandb_reaches_for_no_server(tmp_path):
    script = f"""
import pathlib, sys
import anomaly_lab.training.loggers.mirrors
print(sorted({{"wandb", "tensorboard", "mlflow"}} & set(sys.modules)))
import anomaly_lab.training.loggers.tensorboard
import anomaly_lab.training.loggers.mlflow
print(sorted({{"wandb", "mlflow"}} & set(sys.modules)))
from tests.support.boards import chosen, mirrors_of
with mirrors_of(pathlib.Path({str(tmp_path)!r}), wandb=chosen("wandb")).opened((1, 1)) as (logger,):
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
    assert process.stdout.splitlines()[:2] == ["[]", "[]"]
    assert read(folders(tmp_path)[0])["exit_code"] == 0


@pytest.mark.usefixtures("offline")
def test_disabled_wandb_writes_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomaly_lab")
    module = Line()
    job(mirrors_of(tmp_path, wandb=chosen("wandb", "logger.wandb.mode=disabled")), module, METRICS)
    assert len(module.losses) == STEPS
    assert (folders(tmp_path), ours(caplog)) == ([], [])
    assert not (tmp_path / "dashboards.json").exists()


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
    mirrors = mirrors_of(tmp_path, wandb=chosen("wandb", f"logger.wandb.mode={mode}"))
    with pytest.raises(RunError) as error, mirrors.opened(SIZES):
        pass
    assert (
        str(error.value)
        == "logger=wandb: did not open (CommError: no route); give logger.wandb.mode=offline or logger=csv"
    )
