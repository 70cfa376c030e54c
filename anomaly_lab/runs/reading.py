"""Reading the small files of a run directory, which may come from anybody, and may be damaged."""

import json
from pathlib import Path
from typing import Any

from anomaly_lab.errors import RunError

LARGEST = 2**18  # bytes; a config and a manifest have a few thousand


def read_text(file: Path) -> str:
    """Return a small UTF-8 file. RunError: it is no plain file of at most `LARGEST` bytes, or no UTF-8."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise RunError(f"{file}: is no file of at most {LARGEST} bytes, so no run wrote it")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: cannot be read ({one_line(error)})") from error


def read_json(file: Path) -> dict[str, Any]:
    """Return a mapping that can be written again, empty if there is no file. RunError: it holds none."""
    if not file.is_symlink() and not file.exists():
        return {}
    way_out = "remove the folder to run again"
    try:
        content = json.loads(read_text(file))
        # Neither NaN nor half a character, which Python reads without a word.
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged ({one_line(error)}); {way_out}") from error
    if not isinstance(content, dict):
        raise RunError(f"{file}: is damaged (holds no mapping); {way_out}")
    return content


def one_line(said: object, most: int = 200) -> str:
    """Return the first signs of what was said, 200 of them, without line ends and what a terminal obeys."""
    shown = " ".join(str(said).split())[:most]
    return "".join(sign if sign.isprintable() else "?" for sign in shown)
