"""What to say of an error, and how to write a text that Hydra would read otherwise."""

import difflib
import os
import re
import shlex
import sys
import traceback
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from anomaly_lab.errors import ConfigError, UserError


def quoted(key: str, text: str) -> str:
    """Return the override that sets a key to this very text."""
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1]}{found[1]}\\${{", text)  # else an interpolation
    return f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"


def keep_path(argument: str) -> str:
    """Quote the value of ``key=value`` if it is a path on this disk that Hydra's grammar would reject or change."""
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


def explained(error: BaseException) -> BaseException:
    """Return what Hydra could not compose as an error of one line; others as they are."""
    if isinstance(error, ConfigError) or not isinstance(error, Exception):
        return error
    line = ConfigError(explain(error))
    line.__cause__ = error
    return line


def placed(line: str, place: str) -> str:
    """Return what a synthesizer says of ``synthesis.KEY`` with the key of where it stands: a mix's member, or defects.

    ``place`` is its path within ``data``, where the config's synthesis is ``synthesis``.
    """
    prefix = place if place.startswith("synthesis") else f"data.{place}"
    return f"{prefix}.{key}" if (key := line.removeprefix("synthesis.")) != line else line


def report(error: BaseException, *, tracebacks: bool) -> int:
    """Print one line for what a user can mend, else (or if asked for) a traceback; return the exit code."""
    if type(error).__name__ == "SIGTERMException":  # Lightning's, a SystemExit without a code
        print("anomaly_lab: terminated", file=sys.stderr)
        return 143
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        raise error  # --help; Lightning, too, ends by SystemExit when interrupted
    if not isinstance(error, Exception):
        way_on = "the same command goes on from the last saved state, if there is one (trainer.save_minutes)"
        print(f"anomaly_lab: interrupted; {way_on}", file=sys.stderr)
        return 130
    cause: BaseException | None = error
    place = re.search(r"\nfull_key: data\.(.*)$", str(error)) if isinstance(error, InstantiationException) else None
    while cause and not isinstance(cause, UserError):  # Hydra wraps what a constructor raises
        cause = cause.__cause__
    if cause and not tracebacks:
        line = str(cause).splitlines()[-1]
        print(f"anomaly_lab: error: {placed(line, place[1]) if place else line}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1
