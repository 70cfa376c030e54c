"""Look at every file of a data set: ``python -m anomaly_lab check data=mvtec data.root=DIR ...``.

Nothing is trained, and nothing written but what a data set makes itself (demo, synthetic_defects). A problem
would stop a run or falsify its numbers, and makes the exit code 1. What a run would end with, whatever its
method, is said as there: Look at this.

All keys of a data set: python -m anomaly_lab --help data=NAME
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from anomaly_lab.config.building import instantiate
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.decoding import Room
from anomaly_lab.data.images import WHITES, Reading, read_image
from anomaly_lab.data.listing import ListingError
from anomaly_lab.errors import DataError
from anomaly_lab.evaluation.doubts import shown
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.types import ImageRecord
from anomaly_lab.verbs.rules import (
    Finding,
    Look,
    brightness,
    counts,
    doubts,
    duplicates,
    enlarged,
    look,
    masks,
    masks_of_normals,
    shapes,
)

SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
FEW_FILES = 10  # shown of a warning


def work(asked: Composition) -> None:
    """Print what there is and every finding, with paths below ``data.root``.

    DataError if there is a problem.
    """
    cfg = asked.cfg
    cfg.synthesis = {
        "_target_": "anomaly_lab.synthesis.none.NoSynthesis"
    }  # that of a recipe may want textures
    Checked.of(cfg, cfg.get("allow") or (), None, asked.typed)
    how: EvaluationSettings = instantiate(cfg.evaluation)
    data: AnomalyDataModule = instantiate(cfg.data, _convert_="all")
    looks, findings = examine(data)
    root = Path(data.root).expanduser()
    found = (
        ""
        if data.crop_box is None
        else f"data.crop: {', '.join(f'{share:.3f}' for share in data.crop_box)}\n"
    )
    found = f"{data.crop_said}\n" if data.crop_said else found
    doubted = doubts(looks, how.target_fpr, register=data.register)
    print(found + "\n".join([*table(looks), *listing(findings, doubted)]).replace(f"{root}/", ""))
    if problems := sum(finding.level == "problem" for finding in findings):
        raise DataError(
            f"{root}: mend the {problems} problem{'s' if problems > 1 else ''} above before a run"
        )


def examine(data: AnomalyDataModule) -> tuple[list[Look], list[Finding]]:
    """Look at every file, past any error; problems come first."""
    splits, errors = list_records(data)
    try:
        geometry = data.geometry()
    except DataError as error:  # crop=auto sees the images
        geometry, errors = None, [*errors, *([] if isinstance(error, ListingError) else [str(error)])]
    training = [record.image for record in splits.get("train", [])]
    reference = None
    try:
        reading = data.reading_of(training)
        if data.register and training:
            reference = read_image(training[0], reading)
    except DataError:  # the file is named where all are looked at
        reading = Reading(WHITES[-1], data.max_megapixels)
    rows = [(role, record) for role, records in splits.items() for record in records]
    room = Room(data.memory_gb)

    def seen_in_turn(row: tuple[str, ImageRecord]) -> Look:
        role, record = row
        with room.reading(record.image):
            return look(role, record, geometry, reading, reference)

    with ThreadPoolExecutor() as pool:
        found = pool.map(seen_in_turn, rows)
        looks = list(tqdm(found, "reading", len(rows), leave=False, disable=None))
    errors += [error for seen in looks for error in seen.errors]
    findings = [Finding("problem", error, []) for error in dict.fromkeys(errors)]
    if data.left_out.files:
        findings.append(Finding("warning", data.left_out.described, data.left_out.files))
    findings += [
        *duplicates(looks),
        *masks(looks, required=data.masks == "required"),
        *masks_of_normals(looks, reading),
        *brightness(looks, reading.white),
    ]
    findings += [*shapes(looks, data.fit, register=data.register), *enlarged(looks, geometry), *counts(looks)]
    return looks, sorted(findings, key=lambda finding: finding.level)


def list_records(data: AnomalyDataModule) -> tuple[dict[str, list[ImageRecord]], list[str]]:
    """Return the records by role, and what is wrong with their listing."""
    try:
        return data.roles, []
    except DataError as error:
        whole = str(error)
    splits = dict[str, list[ImageRecord]]()
    errors = list[str]()
    for role, split in zip(("train", "normal", "test"), SPLITS, strict=True):
        try:
            splits[role] = data.records(split)
        except ListingError as error:
            splits[role], errors = error.records, errors + error.problems
        except DataError as error:
            errors.append(str(error))
    return splits, errors or [whole]


def table(looks: list[Look]) -> Iterator[str]:
    """Lay out one line for each split and defect."""
    groups: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for seen in looks:
        groups[seen.role, seen.record.defect].append(seen)
    rows: list[tuple[str, ...]] = [("", "", "images", "masks", "height", "width", "files")]
    for (role, defect), group in groups.items():
        sizes = [seen.size for seen in group if seen.size]
        kinds = Counter(seen.kind for seen in group if seen.kind)
        files = ", ".join(
            kind if len(kinds) == 1 else f"{kind} x {count}" for kind, count in kinds.most_common()
        )
        spans = [span(lengths) for lengths in zip(*sizes, strict=True)] if sizes else ["", ""]
        masked = str(sum(seen.record.mask is not None for seen in group))
        named = "normal (kept for the threshold)" if role == "normal" else role
        rows.append((named, defect, str(len(group)), masked, *spans, files))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if looks else []:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def span(lengths: Collection[int]) -> str:
    """Return smallest / median / largest, or the one length there is."""
    spread = min(lengths), statistics.median_low(lengths), max(lengths)
    return " / ".join(map(str, spread if len(set(spread)) > 1 else spread[:1]))


def listing(findings: list[Finding], doubtful: Sequence[str] = ()) -> Iterator[str]:
    """Lay out the findings, of a warning the first files, and what a run would find doubtful."""
    for finding in findings:
        first = finding.files if finding.level == "problem" else finding.files[:FEW_FILES]
        yield f"\n{finding.level.upper()}: {finding.text}"
        yield from (f"  {file}" for file in first)
        if len(first) < len(finding.files):
            yield f"  and {len(finding.files) - len(first)} more"
    yield from (f"\n{line}" for line in shown(doubtful))
    if not findings and not doubtful:
        yield "\nNothing found that is wrong."
