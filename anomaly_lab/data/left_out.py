"""What lies in listed folders and is no image of the data set: nothing vanishes without a word."""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from anomaly_lab.data.names import printable

# .jfif and .jpe are JPEG by other names.
SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".tif", ".tiff", ".webp"}
# Images that are not read: a decoder is missing, or what their values mean is not settled by the file alone.
OTHERS = {
    *(".avif", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".tga", ".exr", ".hdr"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".pfm", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".raw"),
}
WATCHING: ContextVar[set[Path] | None] = ContextVar("WATCHING", default=None)


class LeftOut(NamedTuple):
    """What was passed over: how many of each kind, in words, and which, printable."""

    text: str  # 3 HEIC files, 6 images in inner folders; empty if nothing was
    files: list[str]

    @property
    def described(self) -> str:
        """A sentence; nothing if nothing was left out."""
        taken = "only PNG, JPEG, BMP, TIFF and WebP files right inside a listed folder count"
        return f"left out of the data set: {self.text}; {taken}" if self.files else ""


@contextmanager
def watched() -> Iterator[set[Path]]:
    """Give the set of the folders that are listed while the body runs."""
    folders = set[Path]()
    token = WATCHING.set(folders)
    try:
        yield folders
    finally:
        WATCHING.reset(token)


def listed(folder: Path) -> None:
    """Note that a folder is listed, for whoever watches."""
    if (folders := WATCHING.get()) is not None:
        folders.add(folder)


def is_no_file(path: Path) -> bool:
    """Say whether a path, or what it links to, is something else than a file, as a pipe, which has no end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # whoever reads it says why it cannot be read
        return False


def left_out(folders: Collection[Path]) -> LeftOut:
    """Return what lies in the folders, or below them, and looks like an image, but is not listed."""
    counts = Counter[tuple[str, str]]()
    files = list[str]()
    for folder in sorted(folders):
        for file, kind in _passed_over(folder, folders):
            counts[kind] += 1
            files.append(printable(file))
    words = [f"{count} {many if count > 1 else one}" for (one, many), count in counts.items()]
    return LeftOut(", ".join(words), files)


def _passed_over(folder: Path, listed_too: Collection[Path]) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield what is no image of the folder, with the names of its kind, for one and for many."""
    for place, inner, names in os.walk(folder):
        here = Path(place)
        inner[:] = sorted(name for name in inner if name[0] != "." and here / name not in listed_too)
        for file in (here / name for name in sorted(names) if name[0] != "."):
            suffix = file.suffix.lower()
            if suffix not in SUFFIXES | OTHERS:
                continue
            if is_no_file(file):
                yield file, ("pipe or device", "pipes or devices")
            elif here != folder:
                yield file, ("image in inner folders", "images in inner folders")
            elif suffix in OTHERS:
                yield file, (f"{suffix[1:].upper()} file", f"{suffix[1:].upper()} files")
