"""Settings as they are shown: a key by its last name, a float by four digits, unless two would look alike."""

import math
import re
from collections.abc import Iterable

DIGITS = 4  # significant ones
MOST = 17  # which tell any two floats apart
FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
ELEMENT = re.compile(r"[^\[\],]+")  # of a list as one types it


def brief_values(values: Iterable[str]) -> dict[str, str]:
    """Return by each value what is shown of it: different ones are shown differently.

    Floats have `DIGITS` digits, all of them more where two of the values are alike in these; whatever is no
    float stays, and so does a float that has no more digits.
    """
    distinct = set(values)
    for digits in range(DIGITS, MOST + 1):
        shown = {value: _rounded(value, digits) for value in distinct}
        if len(set(shown.values())) == len(distinct):
            return shown
    return {value: value for value in distinct}  # as 0.30 beside 0.3000


def brief_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return by each dotted key its last name, or all of it where another one ends alike."""
    distinct = set(keys)
    lasts = [key.rpartition(".")[2] for key in distinct]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(distinct, lasts, strict=True)}


def _rounded(value: str, digits: int) -> str:
    if value[:1] == "[" and value[-1:] == "]":
        return ELEMENT.sub(lambda found: _rounded_float(found[0], digits), value)
    return _rounded_float(value, digits)


def _rounded_float(text: str, digits: int) -> str:
    if not FLOAT.fullmatch(text):
        return text
    value = float(text)
    short = f"{value:.{digits}g}"
    return text if not math.isfinite(value) or float(short) == value else short
