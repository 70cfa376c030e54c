"""Pictures for the page: best and worst of each method, and methods side by side on the same images."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, final

from PIL import Image

from anomaly_lab.report.chosen import Chosen
from anomaly_lab.report.columns import Column
from anomaly_lab.report.run import plain_path
from anomaly_lab.runs.reading import one_line

FILE = re.compile(r"\d+-(lowest-defective|highest-good|highest-defective)-(.+)\.png", re.DOTALL)
SAID = {
    "lowest-defective": "the defect of the lowest score",
    "highest-good": "the good image of the highest score",
    "highest-defective": "the defect of the highest score",
}
MOST = 24  # pictures of the best and the worst, and as many side by side
ROWS = 6  # methods side by side on an image
BYTES = 7 * 2**19  # of the best and the worst as the page has them, and as many side by side
PIXELS = 2**24  # of a picture; a run writes far smaller ones
QUALITY = 80


class Overlay(NamedTuple):
    """A picture that a run drew of a test image."""

    file: Path
    kind: str
    image: str  # the end of the file's name: defect and name of the test image


class Shown(NamedTuple):
    """A picture on the page."""

    data: str
    column: Column
    category: str
    overlay: Overlay
    source: str  # a data: address
    size: tuple[int, int]  # width, height in pixels
    found: str = ""  # what the run's threshold makes of it; empty where that is not known


@final
@dataclass
class Album:
    """Reads pictures while there is room for them, and knows what was left out."""

    left: int = MOST
    room: int = BYTES
    without: int = 0
    said: list[str] = field(default_factory=list)

    def row(
        self, data: str, category: str, wanted: Sequence[tuple[Column, Overlay]], least: int = 1
    ) -> list[Shown]:
        """Return pictures, smaller in bytes: all that can be read, or none where there is no room for these.

        Half of the methods on an image compare nothing; nor do fewer than ``least``.
        """
        if self.left < len(wanted) or self.room <= 0:
            self.without += len(wanted)
            return []
        shown: list[Shown] = []
        room = self.room
        for column, overlay in wanted:
            try:
                content, size = smaller(overlay.file)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self.said.append(f"{plain_path(overlay.file)}: cannot be shown ({type(error).__name__})")
                continue
            room -= len(content)
            source = f"data:image/jpeg;base64,{content}"
            shown.append(Shown(data, column, category, overlay, source, size))
        if room < 0 or len(shown) < least:
            self.without += len(shown)
            if room < 0:
                self.room = 0  # so that no more are read in vain
            return []
        self.left -= len(shown)
        self.room = room
        return shown


def smaller(file: Path) -> tuple[str, tuple[int, int]]:
    """Return a picture as a JPEG file in base64, with its width and height."""
    with Image.open(file, formats=["PNG"]) as picture:
        if picture.width * picture.height > PIXELS:
            raise ValueError("too large")
        out = io.BytesIO()
        picture.convert("RGB").save(out, "JPEG", quality=QUALITY)
        return base64.b64encode(out.getvalue()).decode(), picture.size


def overlays(folder: Path) -> list[Overlay]:
    """Return the pictures of a run, in the order in which it chose them."""
    files = sorted(folder.glob("maps/*.png"))
    matches = ((file, FILE.fullmatch(file.name)) for file in files)
    return [Overlay(file, match[1], one_line(match[2])) for file, match in matches if match]


def best_and_worst(shown: Mapping[tuple[str, str], Sequence[Chosen]], album: Album) -> Iterator[Shown]:
    """Yield of each method its worst scores where its image AUROC is lowest, the best where it is highest."""
    by_column: dict[tuple[str, Column], list[Chosen]] = {}
    for (data, _), runs in shown.items():
        for one in runs:
            if "image_auroc" in one.run.metrics:
                by_column.setdefault((data, one.column), []).append(one)
    for (data, column), runs in by_column.items():
        ordered = sorted(runs, key=lambda one: one.run.metrics["image_auroc"])
        wanted = {
            "lowest-defective": ordered[0],
            "highest-good": ordered[0],
            "highest-defective": ordered[-1],
        }
        for kind, one in wanted.items():
            first = next((found for found in overlays(one.run.path) if found.kind == kind), None)
            if first:
                word = verdict(kind, one.run.metrics)
                pictures = album.row(data, one.run.category, [(column, first)])
                yield from (picture._replace(found=word) for picture in pictures)


def verdict(kind: str, metrics: Mapping[str, float]) -> str:
    """Return what a run's threshold makes of its first picture of a kind: a miss, a false alarm, a hit.

    The first one is of the lowest or highest score of all, so the shares of images above the threshold tell
    on which side of it the score lies. Empty if it lies on the right side, and where there is no threshold.
    """
    recall, alarms = (metrics.get(f"image_{name}_at_threshold") for name in ("recall", "fpr"))
    if kind == "highest-good":
        return "false alarm" if alarms else ""
    if recall is None:
        return ""
    if kind == "lowest-defective":
        return "missed" if recall < 1 else ""
    return "hit" if recall else "missed"


def side_by_side(
    shown: Mapping[tuple[str, str], Sequence[Chosen]], album: Album
) -> Iterator[tuple[str, str, str, list[Shown]]]:
    """Yield data set, category and test image with the pictures that several methods drew of it.

    Each category gives the image that most methods drew, one with a defect before one without, then each its
    next one, while there is room.
    """
    queues: list[tuple[str, str, list[tuple[str, list[tuple[Column, Overlay]]]]]] = []
    for (data, category), runs in shown.items():
        found: dict[str, dict[Column, Overlay]] = {}
        for run, column in runs:
            for overlay in overlays(run.path):
                found.setdefault(overlay.image, {}).setdefault(column, overlay)
        several = [(image, list(drawn.items())) for image, drawn in found.items() if len(drawn) > 1]
        # Defects first: a good image shows false alarms alone.
        several.sort(key=lambda pair: (-len(pair[1]), _is_good(pair[1]), pair[0]))
        queues.append((data, category, several))
    for turn in range(max((len(several) for *_, several in queues), default=0)):
        for data, category, several in queues:
            if turn < len(several):
                image, drawn = several[turn]
                album.without += max(0, len(drawn) - ROWS)
                pictures = album.row(data, category, drawn[:ROWS], least=2)
                if pictures:
                    yield data, category, image, pictures


def _is_good(drawn: Sequence[tuple[Column, Overlay]]) -> bool:
    return any(overlay.kind == "highest-good" for _, overlay in drawn)
