"""What to say of a command line that cannot be composed, and how to write a text that Hydra would read otherwise."""

import difflib
import os
import re
import shlex
import sys
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError


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
