"""Names of files and folders: which are taken, how any is printed, how a long one is shortened."""

import os
import unicodedata
from pathlib import Path

from anomaly_lab.errors import ConfigError, DataError

# Control signs, halves of a sign (bytes that are no UTF-8), ends of a line and of a paragraph.
UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}


def is_plain(text: str) -> bool:
    """Say whether a text fits on one line and can be written as UTF-8."""
    return text.isprintable() or not any(unicodedata.category(sign) in UNPRINTED for sign in text)


def printable(text: str | Path) -> str:
    r"""Return a text with \xe4, \n or \u2028 for each sign that cannot stand in a line."""
    whole = os.fsencode(text).decode(errors="backslashreplace")
    signs = (sign if is_plain(sign) else sign.encode("unicode_escape").decode() for sign in whole)
    return "".join(signs)


def check_plain(path: Path) -> None:
    """Raise DataError if a path could not be written into a report, or would break its line."""
    if not is_plain(str(path)):
        raise DataError(
            f"{printable(path)}: a name has control signs or is no UTF-8; rename the file or folder"
        )


def check_category(category: str) -> None:
    """Raise ConfigError unless a category is the plain name of a folder."""
    if not category or "/" in category or category[0] == ".":
        name = Path(os.path.normpath(category)).name.lstrip(".") or "NAME"
        way_out = f"give data.category={name}, and the folder that holds it as data.root"
        raise ConfigError(f"data.category: {category!r} is no plain name of a folder; {way_out}")


def shortened(text: str, most: int) -> str:
    """Return the beginning that takes at most so many bytes, as file systems count them."""
    return text.encode()[:most].decode(errors="ignore")
