"""The command line, ``python -m anomaly_lab model=NAME ``: Hydra composes, `run` validates and runs."""

import difflib
import gc
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from anomaly_lab.errors import ConfigError, UserError

PACKAGE = Path(__file__).parent
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent  # in a wheel; in a checkout
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def train_and_test(cfg: DictConfig) -> None:
    """Do a run."""
    from anomaly_lab.run import run  # noqa: PLC0415 - it brings torch, which --help can do without

    run(cfg)


def main(work: Callable[[DictConfig], None] = train_and_test) -> int:
    """Do the work with what the command line says; return 0, or 1 after an error, or 130 after an interrupt."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    codes = [0]

    def job(cfg: DictConfig) -> None:  # returns nothing: a sweeper would optimise a metric of the test set
        try:
            work(cfg)
        except Exception as error:
            codes.append(report(error))  # caught here: the other jobs of a sweep go on
        finally:
            gc.collect()  # a job's images lie in cycles, and the next job brings its own

    try:
        prepare()
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(job)()
    except (ConfigError, KeyboardInterrupt, SystemExit) as error:
        codes.append(report(error))
    except Exception as error:
        line = ConfigError(explain(error))
        line.__cause__ = error
        codes.append(report(line))
    return max(codes)


def prepare() -> None:
    """Check the arguments, quote their paths, and make the folder experiments/ a config group."""
    sys.argv[1:] = [keep_path(argument) for argument in sys.argv[1:]]
    parser = get_args_parser()
    parser.exit_on_error = False
    options, unknown = parser.parse_known_args()
    if unknown:
        raise ConfigError(f"{unknown[0]} is no option; keys are set by key=value, all of them after the options")
    if any(re.match(r"\+experiments=.*,", override) for override in options.overrides):
        raise ConfigError("experiments: each is a sweep of its own; give one at a time")
    for file in Path(options.config_dir).glob("*/*.yaml") if options.config_dir else ():
        if any((folder / file.parent.name / file.name).exists() for folder in (ROOT / "conf", ROOT)):
            raise ConfigError(f"{file}: there is a shipped option of this name; rename the file")
    for file in (ROOT / "experiments").glob("*.yaml"):  # a group is a folder inside conf/, or what is stored
        ConfigStore.instance().store(file.stem, OmegaConf.load(file), group="experiments", package="_global_")


def report(error: BaseException) -> int:
    """Print one line for what a user can mend, else a traceback; return the exit code."""
    if type(error).__name__ == "SIGTERMException":  # Lightning's, a SystemExit without a code
        print("anomaly_lab: terminated", file=sys.stderr)
        return 143
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        raise error  # --help; Lightning, too, ends by SystemExit when interrupted
    if not isinstance(error, Exception):
        print("anomaly_lab: interrupted", file=sys.stderr)
        return 130
    cause: BaseException | None = error
    while cause and not isinstance(cause, UserError):  # Hydra wraps what a constructor raises
        cause = cause.__cause__
    if cause and not TRACEBACKS:
        print(f"anomaly_lab: error: {str(cause).splitlines()[-1]}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


def keep_path(argument: str) -> str:
    """Quote the value of ``key=value`` if it is a path on this disk that Hydra's grammar would reject or change."""
    key, _, value = argument.partition("=")
    path = Path(value).expanduser() if value.startswith("~/") else value
    if argument.startswith("-") or not os.path.lexists(path):
        return argument
    try:
        read = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return quoted(key, str(path))
    kept = read is None or isinstance(read, (int, float)) or (read == value and "${" not in value)
    return argument if kept else quoted(key, str(path))


def quoted(key: str, text: str) -> str:
    """Return the override that sets a key to this very text."""
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1]}{found[1]}\\${{", text)  # else an interpolation
    return f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"


def explain(error: Exception) -> str:
    """Return in one line, with the key and its near miss, what Hydra could not compose."""
    cause, line = error.__cause__, " ".join(str(error).split()) or str(error.__cause__)
    ambiguous = re.match("Ambiguous value for argument '(.*)' 1. ", line)
    override = error.override if isinstance(error, OverrideParseException) else ambiguous and ambiguous[1]
    if override and "=" in override:
        typed = quoted(*override.partition("=")[::2])
        typed = shlex.quote(typed) if set(typed) & set('"\\$`!') else f'"{typed}"'
        return f"cannot read {override}; to give it as text: {typed}; to sweep over values put -m before"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, word = error.missing_cfg_file.rpartition("/")
        line, choices = f"{group}={word} is no option", [option for option in error.options if option[0] != "_"]
    elif isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        line, word, choices = f"{cause.full_key} is no key", str(cause.key), [str(key) for key in cause.parent_node]
    else:
        given = f" (in: {shlex.join(sys.argv[1:])})" if isinstance(error, ValueError) else ""
        return re.split(" Config search path:| See https:", line)[0] + given
    close = difflib.get_close_matches(word, choices, 1)
    return f"{line}; did you mean {close[0]}?" if close else f"{line}; there are: {', '.join(choices)}"


if __name__ == "__main__":
    sys.exit(main())
