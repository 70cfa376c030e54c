"""One line for each thing that a user can mend: near misses, misfits, what Hydra could not compose."""

import difflib
import json
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TextIO, Union, final, get_args, get_origin

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from anomaly_lab.errors import BusyError, ConfigError, Terminated, mendable

# Hydra's launchers, by the option that they bring, the extra that has them.
LAUNCHERS = {name: name.partition("_")[0] for name in ("joblib", "submitit_local", "submitit_slurm", "ray")}
BUSY = 75  # the exit code that sysexits.h names for what may be tried again later


def misfit(value: Any, want: Any, path: str, typed: Mapping[str, str] | None = None) -> str:
    """Return the line for a value that does not fit its annotation.

    Args:
        value: as Hydra read it.
        want: the annotation.
        path: dotted, of the value.
        typed: by key, the texts that were given on the command line.
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    shown = value.get("_target_", f"a mapping{_lacking(want)}") if isinstance(value, dict) else text
    wants_text = want is str or (get_origin(want) in (Union, UnionType) and str in get_args(want))
    as_text = "" if isinstance(value, (dict, list)) or not wants_text else _as_text(path, typed or {})
    close = difflib.get_close_matches(str(value), [str(choice) for choice in get_args(want)], 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{path} must be {_in_words(want)}, not {shown}{as_text}{hint}"


def _lacking(want: Any) -> str:
    """Return what a mapping lacks where an instance of a class is wanted."""
    of_a_class = isinstance(want, type) and want.__module__ != "builtins"
    return " without _target_: add the class, as _target_: MODULE.CLASS" if of_a_class else ""


def _as_text(path: str, typed: Mapping[str, str]) -> str:
    """Return how to give as text what was typed and read as something else, each value of a list or a sweep.

    A shell's quotes stand around Hydra's.
    """
    key = path.partition("[")[0]
    given = typed.get(key)
    if given is None or re.search(r"[({]", given):  # not typed, or by what makes values, as range(1,3)
        return "; put it in quotes, to make it text"
    quotes = ",".join(item if item[0] in "'\"" else f"'{item}'" for item in items(given.strip("[]")))
    return f"; as text: {_for_a_shell(f'{key}={quotes}' if key == path else f'{key}=[{quotes}]')}"


def items(text: str) -> list[str]:
    """Split a text at the commas that stand in no quotes."""
    found = re.findall(r"""(?:'[^']*'|"[^"]*"|[^,])+""", text)
    return [item.strip() for item in found if item.strip()]


def _for_a_shell(override: str) -> str:
    """Put an override with Hydra's quotes into those of a shell."""
    return shlex.quote(override) if set(override) & set('"\\$`!') else f'"{override}"'


def _in_words(want: Any) -> str:
    origin = get_origin(want) or want
    inner = get_args(want)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin in (list, Sequence, dict, Mapping):
        return f"a {'list' if len(inner) == 1 else 'mapping'} of {_in_words(inner[-1]).removeprefix('a ')}s"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return names[origin] if origin in names else str(origin.__name__)


def near(word: Any, choices: Iterable[str]) -> str:
    """Return the choice that looks like the word, else all of them."""
    close = difflib.get_close_matches(str(word), choices, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(choices)}"


def quoted(key: str, text: str) -> str:
    """Return the override that sets a key to this very text."""
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1]}{found[1]}\\${{", text)  # else an interpolation
    return f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"


def explain(error: Exception) -> str:
    """Return in one line, with the key and its near miss, what Hydra could not compose."""
    cause = error.__cause__
    line = " ".join(str(error).split()) or str(error.__cause__)
    ambiguous = re.match("Ambiguous value for argument '(.*)' 1. ", line)
    override = error.override if isinstance(error, OverrideParseException) else ambiguous and ambiguous[1]
    if override and "=" in override:
        key, _, value = override.partition("=")
        typed = quoted(key, value)
        if value[:1] == "[" and value[-1:] == "]":  # a list of texts stays a list
            texts = (item if item[0] in "'\"" else quoted("", item)[1:] for item in items(value[1:-1]))
            typed = f"{key}=[{','.join(texts)}]"
        typed = _for_a_shell(typed)
        if override.count("[") > override.count("]"):
            return f"cannot read {override}; a value with spaces or brackets wants quotes: 'KEY=[a b,c]'"
        return f"cannot read {override}; to give it as text: {typed}; to sweep over values put -m before"
    options = _options(error) if isinstance(error, MissingConfigException) else []
    if options:
        group, _, word = error.missing_cfg_file.rpartition("/")  # type: ignore[attr-defined]
        line = f"{group}={word} is no option"
        choices = [option for option in options if option[0] != "_"]
        if group == "hydra/launcher" and word in LAUNCHERS:
            return f"{line} without its extra: pip install 'anomaly_lab[{LAUNCHERS[word]}]'"
    elif isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        line = f"{cause.full_key} is no key"
        word = str(cause.key)
        choices = [str(key) for key in cause.parent_node if key != "_target_"]
        if not choices:
            owner = str(cause.full_key).rpartition(".")[0]
            return f"{line}; {owner} has none"
    else:
        given = f" (in: {shlex.join(sys.argv[1:])})" if isinstance(error, ValueError) else ""
        return re.split(" Config search path:| See https:", line)[0] + given
    close = difflib.get_close_matches(word, choices, 1)
    return f"{line}; did you mean {close[0]}?" if close else f"{line}; there are: {', '.join(choices)}"


def _options(error: MissingConfigException) -> list[str]:
    """Return the options that there are in place of a missing one; of one in a list Hydra says none."""
    if not error.missing_cfg_file or error.options:
        return list(error.options or ())
    group = error.missing_cfg_file.rpartition("/")[0]
    folders = re.findall(r"path=file://(.+)$", str(error), re.MULTILINE)
    return sorted(file.stem for folder in folders for file in Path(folder, group).glob("*.yaml") if group)


def explained(error: BaseException) -> BaseException:
    """Return what Hydra could not compose as an error of one line; others as they are."""
    if isinstance(error, ConfigError) or not isinstance(error, Exception):
        return error
    line = ConfigError(explain(error))
    line.__cause__ = error
    return line


def placed(line: str, place: str) -> str:
    """Return what a synthesizer says of ``synthesis.KEY`` with the key of where it really stands.

    ``place`` is its path within ``data``, where the config's synthesis is ``synthesis``.
    """
    prefix = place if place.startswith("synthesis") else f"data.{place}"
    return f"{prefix}.{key}" if (key := line.removeprefix("synthesis.")) != line else line


def report(error: BaseException, *, tracebacks: bool) -> int:
    """Print one line for what a user can mend, else (or if asked for) a traceback; return the exit code."""
    way_on = "the same command goes on from what was saved, if anything was"
    terminated = isinstance(error, Terminated)
    if terminated or type(error).__name__ == "SIGTERMException":  # Lightning's, a SystemExit without a code
        print(f"anomaly_lab: terminated; {way_on}", file=sys.stderr)
        return 143
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        raise error  # --help; Lightning, too, ends by SystemExit when interrupted
    if not isinstance(error, Exception):
        print(f"anomaly_lab: interrupted; {way_on}", file=sys.stderr)
        return 130
    # Hydra 1.3 wraps what a constructor raises and says the key in the message; 1.4 adds a note to it
    wrapped = str(error) if isinstance(error, InstantiationException) else ""
    said = "\n".join([wrapped, *getattr(error, "__notes__", [])])
    place = re.search(r"^full_key: (?:data\.)?(.*)$", said, re.MULTILINE)
    cause = mendable(error)
    if cause and not tracebacks:
        line = str(cause).splitlines()[-1]
        kind = "" if isinstance(cause, BusyError) else "error: "
        print(f"anomaly_lab: {kind}{placed(line, place[1]) if place else line}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return BUSY if isinstance(cause, BusyError) else 1


@final
class Console(logging.StreamHandler[TextIO]):
    """Writes what is logged until whoever reads it has enough; the work goes on, unread."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say what went wrong with a record, as logging does, unless the stream was closed."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
