"""What the command line takes: texts that Hydra would read otherwise, words of other projects, own code."""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from anomaly_lab.config.composing import HELD, Composition, composed, first_values, store_experiments
from anomaly_lab.config.messages import explained, items, quoted
from anomaly_lab.config.own_code import find_own
from anomaly_lab.errors import ConfigError

PLAIN = r"-\w|--[\w-]+|[+\w.@/]+=[A-Za-z0-9_/][A-Za-z0-9_/-]*"  # Hydra reads these as they are
SWITCHES = {("report", "--rescore")}  # keys of a verb that may be given as an option
WORDS = r"[^\[\]{}()'\",=\\$]+"  # a text without a sign that Hydra's grammar knows
# Words that people bring from lightning-hydra-template, Lightning and anomalib, and what to say of them.
ELSEWHERE = {
    "trainer.accelerator": "is called trainer.device here: auto, cpu, cuda or mps",
    "trainer.num_nodes": "is called trainer.nodes here",
    "trainer.strategy": "is not there: trainer=ddp takes all GPUs, trainer.devices=N some of them",
    "trainer.sync_batchnorm": "is always done where several devices share a run",
    "trainer.default_root_dir": "is called runs here: runs=FOLDER",
    "trainer.logger": "is called logger here: csv, tensorboard, wandb, mlflow, or a list of them",
    "logger.project": "is called logger.wandb.project here: each logger has keys of its own",
    "logger.entity": "is called logger.wandb.entity here: each logger has keys of its own",
    "logger.group": "is called logger.wandb.group here: each logger has keys of its own",
    "logger.mode": "is called logger.wandb.mode here: each logger has keys of its own",
    "logger.tags": "is called logger.wandb.tags here: each logger has keys of its own",
    "data.num_workers": "is called data.workers here",
    "data.data_dir": "is called data.root here",
    "data.train_batch_size": "is called data.batch_size here; it serves training and testing",
    "data.eval_batch_size": "is called data.batch_size here; it serves training and testing",
    "model.backbone.cache": "is called cache here: cache.folder and cache.gigabytes",
    "ckpt_path": "is not needed: the same command goes on from its last saved state; anomaly_lab.load(RUN) "
    "gives the weights of a finished run",
    "test": "is always done: a run without numbers is none; trainer=debug makes two steps of training",
    "train": "is done unless a finished run has the same training: its weights are then taken",
    "debug": "is an option of the trainer here: trainer=debug",
    "hparams_search": "is called hydra/sweeper=optuna here, on data=synthetic_defects; a grid is -m KEY=A,B",
    "callbacks": "are code here; what they do is set by trainer.* and evaluation.*",
    "task_name": "is called tag here: tag=NAME",
    "paths": "are keys of their own here: data.root, runs and cache.folder",
    "optimizer": "belongs to the method here: model.learning_rate and its like",
    "datamodule": "is called data here: data=NAME",
}


def prepare(verb: str = "") -> None:
    """Make arguments of Hydra of those in sys.argv: words checked, paths quoted, own code found.

    Raises:
        ConfigError: an argument cannot be meant, or has another name here.
    """
    sys.argv[1:] = readable(sys.argv[1:], verb)
    parser = get_args_parser()
    parser.exit_on_error = False
    options, further = parser.parse_known_args()
    if wrong := [word for word in further if word.startswith("-") or not re.match(r"~|[^=]+=", word)]:
        raise ConfigError(f"{wrong[0]} is no option; keys are set by key=value")
    overrides = [*options.overrides, *further]  # those behind an option, too
    _check_words(overrides)
    implied = _implied(overrides, verb)
    if options.cfg and implied:
        implied += first_values(overrides)
    taken = Counter(overrides)
    others = [word for word in sys.argv[1:] if not taken[word]]
    several = options.multirun or "hydra.mode=MULTIRUN" in [*overrides, *implied]
    HELD[:] = _held(overrides) if several and not verb and not options.cfg else []
    held = Counter(HELD)
    sys.argv[1:] = [*others, *(word for word in overrides if not held[word]), *implied]
    if options.config_dir:
        find_own(Path(options.config_dir))
    store_experiments()


def _held(overrides: Sequence[str]) -> list[str]:
    """Return what only the cells of a sweep are composed with: all but what says how, and where."""
    keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    sweeper = [word for word in overrides if word.startswith("hydra/sweeper=")]
    if sweeper and not re.fullmatch("hydra/sweeper=(grid|optuna)", sweeper[-1]):
        return []
    of_all = re.compile(r"hydra[./].*|experiment|runs")
    return [word for word, key in zip(overrides, keys, strict=True) if not of_all.fullmatch(key)]


def _implied(overrides: Sequence[str], verb: str) -> list[str]:
    """Return what goes without saying: an experiment and all categories are sweeps; a verb keeps no runs."""
    given = dict(override.partition("=")[::2] for override in overrides)
    several = given.get("experiment", "null") != "null" or given.get("data.category") == "all"
    mode = ["hydra.mode=MULTIRUN"] if several and "hydra.mode" not in given else []
    return mode + (["hydra/sweeper=each"] if verb and "hydra/sweeper" not in given else [])


def asked_from_python(overrides: Sequence[str], config_dir: Path | None) -> Composition:
    """Compose what the same words on the command line ask for. ConfigError: they cannot be composed."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: give a list of texts, [{overrides!r}], not one text")
    words = readable(overrides, "")
    _check_words(words)
    try:
        return composed(words, config_dir)
    except Exception as error:
        raise explained(error) from error


def readable(arguments: Sequence[str], verb: str) -> list[str]:
    """Return the arguments as Hydra's grammar reads what they mean."""
    renamed = [_renamed(argument, verb) for argument in arguments]
    if all(re.fullmatch(PLAIN, argument) for argument in renamed):
        return renamed
    return [keep_text(keep_path(argument)) for argument in renamed]


def _renamed(argument: str, verb: str) -> str:
    """Return the argument as Hydra knows it: experiment=NAME in any spelling, a verb's own keys as new."""
    if (verb, argument) in SWITCHES:
        argument = f"{verb}.{argument.removeprefix('--')}=true"
    key, equals, value = argument.partition("=")
    if key in {"+experiments", "experiments", "+experiment"}:
        return f"experiment{equals}{value}"
    return f"+{argument}" if verb and key.startswith(f"{verb}.") else argument


def _check_words(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        name = key.lstrip("+~")
        known = next((word for word in ELSEWHERE if name == word or name.startswith(f"{word}.")), None)
        if known is not None:
            raise ConfigError(f"{known} {ELSEWHERE[known]}")
        if name == "experiment" and "," in value:
            raise ConfigError("experiment: each is a sweep of its own; give one at a time")
        if name == "logger" and (value == "many_loggers" or re.match(r"[^\[]+,", value)):
            several = value if "," in value else "wandb,tensorboard"
            raise ConfigError(f"logger={value}: several are a list here: 'logger=[{several}]'")


def keep_path(argument: str) -> str:
    """Quote the value of ``key=value`` if it is a path on this disk that Hydra would reject or change."""
    key, _, value = argument.partition("=")
    path = Path(value).expanduser() if value.startswith("~/") else value
    if argument.startswith("-") or not os.path.lexists(path):
        return argument
    try:
        read = OverridesParser.create().parse_override(argument).value()
        if read is None or isinstance(read, (int, float)) or (read == value and "${" not in value):
            return argument
    except HydraException:
        pass
    return quoted(key, str(path))


def keep_text(argument: str) -> str:
    """Quote what Hydra's grammar cannot read, as letters beyond ASCII, where it can only be meant as text.

    A list keeps its brackets: each item that Hydra cannot read is quoted.
    """
    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals or _is_read(f"x={value}"):
        return argument
    if re.fullmatch(WORDS, value):
        return quoted(key, value)
    given = items(value[1:-1])
    read = [_is_read(f"x={item}") for item in given]
    texts = all(is_read or re.fullmatch(WORDS, item) for item, is_read in zip(given, read, strict=True))
    if value[:1] == "[" and value[-1:] == "]" and texts:
        kept = [one if is_read else quoted("", one)[1:] for one, is_read in zip(given, read, strict=True)]
        return f"{key}=[{','.join(kept)}]"
    return argument


def _is_read(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True
