"""What to say of a config that does not fit."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def misfit(value: Any, want: Any, path: str) -> str:
    """Return the line for a value that does not fit its annotation."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    shown = value.get("_target_", "a mapping") if isinstance(value, dict) else text
    as_text = f"""; as text: {path}="'{shown}'\"""" if want is str and isinstance(value, (int, float)) else ""
    close = difflib.get_close_matches(str(value), [str(choice) for choice in get_args(want)], 1)
    return f"{path} must be {_in_words(want)}, not {shown}{as_text}{f'; did you mean {close[0]}?' if close else ''}"


def _in_words(want: Any) -> str:
    origin, inner = get_origin(want) or want, get_args(want)
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
