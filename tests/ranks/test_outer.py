"""Ranks that torchrun or srun start: which of them a process is, and one sweep that they do together."""

import os
import signal
import time
from pathlib import Path

import pytest
from torch import distributed as dist

from anomaly_lab.__main__ import together
from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import following
from anomaly_lab.ranks.following import first_host
from anomaly_lab.ranks.outer import SLURM, TORCHRUN, Launched, launched
from tests.runs.small_runs import manifest
from tests.support.commands import begun
from tests.support.runs import composed, on_tree, ran
from tests.support.trees import mvtec_tree


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.setenv(name, "")  # so that it is taken out again
        monkeypatch.delenv(name)


def put(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], *values: int) -> None:
    for name, value in zip(names, values, strict=True):
        monkeypatch.setenv(name, str(value))


def test_torchrun_says_which_rank_a_process_is(monkeypatch):
    assert launched() is None
    put(monkeypatch, TORCHRUN, 5, 8, 1, 4)
    assert launched() == (5, 8, 1, "torchrun")
    put(monkeypatch, TORCHRUN, 0, 1, 0, 1)
    assert launched() is None


def test_the_tasks_of_srun_are_ranks_where_the_command_line_asks_for_machines(monkeypatch):
    put(monkeypatch, SLURM, 3, 4, 1)
    monkeypatch.setattr("sys.argv", ["anomaly_lab", "trainer=ddp"])
    assert launched() is None  # each is a process alone, and a sweep may be shared
    monkeypatch.setattr("sys.argv", ["anomaly_lab", "trainer=ddp", "trainer.nodes=2"])
    assert launched() == (3, 4, 1, "srun")


def test_without_a_launcher_the_answer_is_given_at_once():
    assert together(lambda: 7) == 7


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        *[("node1", "node1"), ("a1,a2", "a1"), ("gpu[003-007,9],b1", "gpu003"), ("gpu[12],b", "gpu12")],
        *[("r2-n[1,3]", "r2-n1"), ("10.0.0.7", "10.0.0.7")],
    ],
)
def test_the_first_host_of_a_list_of_slurm(nodes, host):
    assert first_host(nodes) == host


def test_a_launcher_that_started_another_number_is_told_so(monkeypatch, tmp_path):
    put(monkeypatch, TORCHRUN, 0, 4, 0, 4)
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    line = r"^trainer\.devices=2, trainer\.nodes=1 make 2, but torchrun started 4 processes; give these as"
    with pytest.raises(ConfigError, match=line):
        ran(tmp_path, "model=nearest", *on_tree(tree), "trainer.devices=2")
    assert not (tmp_path / "runs").exists()


def test_auto_is_what_the_launcher_started_on_each_machine(monkeypatch):
    from hydra.utils import instantiate

    settings = instantiate(composed("trainer=ddp", "trainer.nodes=2", "trainer.device=cpu").trainer)
    put(monkeypatch, TORCHRUN, 0, 6, 0, 3)
    assert (settings.local_ranks(), settings.ranks()) == (3, 6)


def test_two_steps_of_one_job_on_one_machine_share_neither_port_nor_work(monkeypatch):
    met = []
    one = dist.HashStore()  # as if both had met in one place all the same
    monkeypatch.setattr(following, "rendezvous", lambda *_, **__: iter([(one, 0, 2)]))
    for name, value in {"JOB_ID": "123456", "STEP_NODELIST": "localhost"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that it is taken out again
        monkeypatch.delenv(name)
    stores = []
    for step in ("0", "1", "0"):
        monkeypatch.setenv("SLURM_STEP_ID", step)
        stores.append(following._met(Launched(0, 2, 0, "srun")))
        met.append(os.environ.pop("MASTER_PORT"))
    assert met[0] == met[2] != met[1]
    stores[0].set("job 0", "the first step's")
    assert stores[2].check(["job 0"])
    assert not stores[1].check(["job 0"])


# Processes


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Return what starts a command as the tasks of one srun; what each says goes to a file of its number."""
    tree = mvtec_tree(tmp_path / "data", train=7, good=3, bad=4, size=(64, 64))
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    small = ["data.image_size=64", "data.batch_size=4", "evaluation.bootstrap=10", "evaluation.overlays=0"]
    words = [*on_tree(tree), *small, f"runs={tmp_path}/runs", "trainer=ddp", "trainer.device=cpu"]

    def start(number: int, *more: str):
        put(monkeypatch, SLURM, number, 2, number)
        # Of one machine, but that there are two of each device is for the one to say that started them.
        given = [*more, *words, "trainer.nodes=1", "trainer.devices=2"]
        return begun("anomaly_lab", *given, said=tmp_path / f"said{number}.txt")

    return start


@pytest.mark.long
def test_the_tasks_do_a_sweep_together_and_the_first_alone_speaks_and_writes(tasks, tmp_path):
    sweep = ["-m", "model=nearest,variation"]
    with tasks(1, *sweep) as second, tasks(0, *sweep) as first:
        for process in (first, second):
            process.join(100)
    said = (tmp_path / "said0.txt").read_text()
    assert (first.exitcode, second.exitcode) == (0, 0), said
    assert (tmp_path / "said1.txt").read_text() == ""
    paths = sorted((tmp_path / "runs").glob("*/mvtec/part/*"))
    assert [path.parents[2].name for path in paths] == ["nearest", "variation"]
    assert [manifest(path)["status"] for path in paths] == ["done", "done"]
    assert [manifest(path)["ranks"] for path in paths] == [2, 2]
    (alone, one) = ran(tmp_path / "alone", "model=nearest", *on_tree(tmp_path / "data"), *small_of(paths[0]))
    assert (paths[0] / "metrics.json").read_text() == (one / "metrics.json").read_text()
    assert alone["image_auroc"] > 0.5


def small_of(path: Path) -> list[str]:
    return [
        word
        for word in (path / "overrides.txt").read_text().split()
        if word.startswith(("data.image_size", "data.batch_size", "evaluation."))
    ]


@pytest.mark.long
def test_a_task_that_is_lost_ends_the_first_with_a_line(tasks, tmp_path):
    long = ["model=draem_small", "trainer.max_steps=2000", "trainer.save_minutes=0"]
    with tasks(1, *long) as second, tasks(0, *long) as first:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob("runs/*/*/*/*/resume.ckpt")):
            assert first.is_alive(), (tmp_path / "said0.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(second.pid, signal.SIGKILL)
        first.join(60)
    said = (tmp_path / "said0.txt").read_text()
    assert first.exitcode == 1, said
    assert said.count("anomaly_lab: error: another rank was lost") == 1
    assert "Traceback" not in said
