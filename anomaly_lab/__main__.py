"""The command line, ``python -m anomaly_lab [VERB] KEY=VALUE ...``; without a verb it trains and tests."""

import ast
import gc
import importlib
import importlib.metadata
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anomaly_lab.config import composing, own_code
from anomaly_lab.config.command_line import prepare
from anomaly_lab.config.messages import BUSY, explained, near, report
from anomaly_lab.errors import ConfigError, Terminated
from anomaly_lab.runs.jobs import Job, swept
from anomaly_lab.runs.sweep_table import table
from anomaly_lab.verbs import VERBS

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
Work = Callable[[composing.Composition], dict[str, float] | None]


def main() -> int:
    """Do what the command line says.

    Returns:
        0; 1 after an error; 75 if all else is done but what other processes work on; 130 after an interrupt;
        143 after SIGTERM.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    try:
        try:
            with terminable():
                return answered()
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be caught, and not when Python ends
    except BrokenPipeError:  # whoever reads the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does, so that what is left is told and in order."""

    def terminate(number: int, frame: object) -> None:  # noqa: ARG001 - a handler's signature
        raise Terminated

    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # somebody else decides
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def answered() -> int:
    """Answer a question about the program, or do the jobs that the command line asks for."""
    verb = taken_verb()
    without_verb_in_completion()
    if "--version" in sys.argv[1:]:
        print(f"anomaly_lab {importlib.metadata.version('anomaly_lab')}")
        return 0
    if verb and {"-h", "--help"} & set(sys.argv[1:]):
        # The text is read from the file: to import the module takes seconds.
        source = Path(__file__).with_name("verbs") / f"{verb}.py"
        print(ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))))
        return 0
    return jobs(worker(verb), verb)


def taken_verb() -> str:
    """Take the first word out of sys.argv if it is a verb; return it, or nothing."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in VERBS:
        del sys.argv[1]
        return word
    return ""


def without_verb_in_completion() -> None:
    """Take a verb out of the line that a shell wants completed, which Hydra would read as a key."""
    line = os.environ.get("COMP_LINE", "")
    words = re.match(rf"(\S+ )(?:{'|'.join(VERBS)}) +", line)
    if words:
        os.environ["COMP_LINE"] = words[1] + line[words.end() :]
        gone = words.end() - len(words[1])
        os.environ["COMP_POINT"] = str(max(0, int(os.environ.get("COMP_POINT", len(line))) - gone))


def worker(verb: str) -> Work:
    """Return what is done with a composed config; its libraries are loaded when it is called."""

    def work(asked: composing.Composition) -> dict[str, float] | None:
        if verb:
            module = importlib.import_module(f"anomaly_lab.verbs.{verb}")
            module.work(asked)
            return None
        # What is imported is no garbage; to look through all of it again and again takes a second
        gc.disable()
        from anomaly_lab.train import run  # noqa: PLC0415 - brings torch, which --help can do without

        gc.freeze()
        gc.enable()
        done = run(asked)
        return done.metrics | ({"doubts": len(done.doubts)} if done.doubts else {})

    return work


def jobs(work: Work, verb: str) -> int:
    """Let Hydra compose each job of the command line and have it done.

    A sweep ends with a table of its jobs.
    """
    codes = [0]
    broken: list[BrokenPipeError] = []

    def job(cfg: DictConfig) -> None:  # returns nothing: a sweeper would optimise a metric of the test set
        asked: Any = HydraConfig.get()
        number = asked.job.num if asked.mode == RunMode.MULTIRUN else 0
        cells.add(number, done(work, cfg, list(asked.overrides.task), broken))

    with swept() as cells:
        try:
            check_first_word()
            prepare(verb)
            conf = str(own_code.ROOT / "conf")
            hydra.main(version_base="1.3", config_path=conf, config_name="config")(job)()
            if broken:
                raise broken[0]
            close(cells.all())
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit, Terminated) as error:
            codes.append(report(explained(error), tracebacks=TRACEBACKS))
        codes += [cell.code for cell in cells.all()]
    return max(codes, key=[0, BUSY, 1, 130, 143].index)


def done(work: Work, cfg: DictConfig, given: list[str], broken: list[BrokenPipeError]) -> Job:
    """Do a job, past any error, as the others of a sweep go on; a closed pipe goes to ``broken``."""
    metrics: dict[str, float] = {}
    code = 0
    try:
        metrics = work(composing.of_job(cfg)) or {}
    except BrokenPipeError as error:
        code = 1  # seen where a launcher did the job in another process; here it is raised again
        broken.append(error)  # later: of what a job raises Hydra speaks before it ends
    except Exception as error:
        code = report(error, tracebacks=TRACEBACKS)
    finally:
        tidy()
    return Job(given, metrics, code)


def close(cells: Sequence[Job]) -> None:
    """Print the table of a sweep, and last what is left to do."""
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for cell in cells:
        rows.setdefault(tuple(cell.given), {}).update(cell.metrics)  # seed=0,0 is one row
    if len(rows) < 2:
        return
    if any(rows.values()):
        print(table([(list(given), metrics) for given, metrics in rows.items()]), flush=True)
    if skipped := sum(cell.code == BUSY for cell in cells):
        why = "as other processes work on them; give the same command again later"
        print(f"anomaly_lab: {skipped} of {len(cells)} runs skipped, {why}", file=sys.stderr)


def tidy() -> None:
    """Let go of a job's images, which lie in cycles, and look no more through what is left, the libraries."""
    gc.collect()
    gc.freeze()


def check_first_word() -> None:
    """Raise ConfigError for a first word that is meant as a verb but is none, and for a verb elsewhere."""
    for before, word in pairwise(sys.argv[1:]):
        if word in VERBS and not before.startswith("--config"):
            raise ConfigError(f"{word} is a verb: it comes first")
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in VERBS:
        raise ConfigError(f"{word} is a second verb; give one at a time")
    if re.fullmatch(r"[a-z_]+", word):
        raise ConfigError(
            f"{word} is no verb, and keys are set by key=value, without spaces{near(word, VERBS)}"
        )


if __name__ == "__main__":
    sys.exit(main())
