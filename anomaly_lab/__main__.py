"""The command line, ``python -m anomaly_lab [VERB] KEY=VALUE ...``; without a verb it trains and tests."""

import ast
import gc
import importlib
import importlib.metadata
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anomaly_lab.config import composing, own_code
from anomaly_lab.config.building import VERSION_BASE
from anomaly_lab.config.command_line import prepare
from anomaly_lab.config.messages import BUSY, explained, near, report
from anomaly_lab.errors import ConfigError, Terminated
from anomaly_lab.ranks.outer import launched
from anomaly_lab.sweeps.sweepers import Ended, register
from anomaly_lab.verbs import VERBS

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
CLOSED = 141  # as a shell says it of a process that SIGPIPE ended
Work = Callable[[composing.Composition], None]


def main() -> int:
    """Do what the command line says.

    Returns:
        0; 1 after an error; 75 if all else is done but what other processes work on; 130 after an interrupt;
        141 if whoever reads the output closed it on a run or sweep, which ends there; 143 after SIGTERM.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    code = 0
    try:
        try:
            with terminable():
                code = together(answered)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be caught, and not when Python ends
    except BrokenPipeError:  # whoever reads the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def together(answer: Callable[[], int]) -> int:
    """Return the exit code of ``answer``; a further rank does its share of what the first one does."""
    place = launched()
    if place is None:
        return answer()
    from anomaly_lab.ranks.following import follow, led  # noqa: PLC0415 - brings torch, which --help can do without

    return follow(place) if place.rank else led(place, answer)


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

    def work(asked: composing.Composition) -> None:
        if verb:
            importlib.import_module(f"anomaly_lab.verbs.{verb}").work(asked)
            return
        # What is imported is no garbage; to look through all of it again and again takes a second
        gc.disable()
        from anomaly_lab.train import run  # noqa: PLC0415 - brings torch, which --help can do without

        gc.freeze()
        gc.enable()
        run(asked)

    return work


def jobs(work: Work, verb: str) -> int:
    """Let Hydra compose each job of the command line and have it done."""
    codes = [0]
    broken: list[BrokenPipeError] = []

    def job(cfg: DictConfig) -> None:  # returns nothing: a sweeper would optimise a metric of the test set
        asked: Any = HydraConfig.get()
        sweeping = asked.mode == RunMode.MULTIRUN
        try:
            code = done(work, cfg)
        except BrokenPipeError as error:
            broken.append(error)
            if sweeping:
                raise
            return  # of what a job raises Hydra speaks before it ends
        if code and sweeping:
            raise Ended(code)
        codes.append(code)

    try:
        codes.append(composed(job, verb))
    except BrokenPipeError:
        if not broken:  # all was done, and only then there was more to say
            raise
    if broken:
        return 0 if verb else CLOSED
    return max(codes, key=[0, BUSY, 1, 130, 143].index)


def composed(job: Callable[[DictConfig], None], verb: str) -> int:
    """Hand a job to Hydra, which composes what the command line says; return the exit code of that."""
    try:
        check_first_word()
        prepare(verb)
        register()
        conf = str(own_code.ROOT / "conf")
        hydra.main(**VERSION_BASE, config_path=conf, config_name="config")(job)()
    except BrokenPipeError:
        raise
    except Ended as ended:
        return ended.code
    except (Exception, KeyboardInterrupt, SystemExit, Terminated) as error:
        return report(explained(error), tracebacks=TRACEBACKS)
    return 0


def done(work: Work, cfg: DictConfig) -> int:
    """Do a job; return the exit code, as the others of a sweep go on past any error but a closed pipe."""
    try:
        work(composing.of_job(cfg))
    except BrokenPipeError:
        raise
    except Exception as error:
        return report(error, tracebacks=TRACEBACKS)
    finally:
        tidy()
    return 0


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
