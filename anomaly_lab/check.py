"""``python -m anomaly_lab.check data=mvtec data.root=DIR data.category=NAME``: looks at every file of a data set.

Nothing is trained or written. A problem would stop a run or falsify its numbers, and makes the exit code 1.
"""

import hashlib
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from tqdm import tqdm

from anomaly_lab import config
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.images import Geometry, read_image, read_mask, resize_mask
from anomaly_lab.data.tree import ListingError, images
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord

FEW_IMAGES = 10
ASPECT_SPREAD, SIZE_SPREAD = 1.2, 2.0  # largest by smallest, from which on a warning is due
FATES = {
    "missing": "have no mask; without all of them there are no pixel metrics",
    "empty": "have a mask in which no pixel is anomalous",
    "cut": "have their anomaly outside data.crop or data.center_crop",
    "lost": "have an anomaly too small for data.image_size: the network's mask of it is empty",
}


class Finding(NamedTuple):
    """What is wrong, and with which files."""

    level: Literal["problem", "warning"]
    text: str
    files: list[str]


class Look(NamedTuple):
    """What the files of one record hold."""

    role: str  # train, normal (kept for the threshold) or test
    record: ImageRecord
    errors: list[str]  # why its image or its mask cannot be read
    size: tuple[int, int] | None = None  # (H, W)
    kind: str = ""  # PNG RGB, for one
    digest: bytes = b""  # of the pixels
    fate: str = "visible"  # of the anomaly, or one of FATES


def check(cfg: DictConfig) -> None:
    """Print what there is and every finding.

    Raises:
        DataError: there is a problem.
    """
    cfg.synthesis = {"_target_": "anomaly_lab.synthesis.none.NoSynthesis"}  # that of a recipe may want textures
    config.validate(cfg)
    data: AnomalyDataModule = instantiate(cfg.data)
    looks, findings = inspect(data)
    print("\n".join([*table(looks), *listing(findings)]))
    if problems := sum(finding.level == "problem" for finding in findings):
        raise DataError(f"{cfg.data.root}: {problems} of these findings must be mended before a run")


def inspect(data: AnomalyDataModule) -> tuple[list[Look], list[Finding]]:
    """Look at every file, past any error; problems come first."""
    splits, errors = list_records(data)
    try:
        geometry = data.geometry()
    except DataError as error:  # crop=auto sees the images
        geometry, errors = None, [*errors, *([] if isinstance(error, ListingError) else [str(error)])]
    rows = [(role, record) for role, records in splits.items() for record in records]
    with ThreadPoolExecutor() as pool:
        reading = pool.map(lambda row: look(*row, geometry), rows)
        looks = list(tqdm(reading, "reading", len(rows), leave=False, disable=None))
    errors += [error for seen in looks for error in seen.errors]
    findings = [Finding("problem", error, []) for error in dict.fromkeys(errors)]
    for judge in (duplicates, masks, masks_of_normals, shapes, counts):
        findings += judge(data, looks)
    return looks, sorted(findings, key=lambda finding: finding.level)


def list_records(data: AnomalyDataModule) -> tuple[dict[str, list[ImageRecord]], list[str]]:
    """Return the records by role, and what is wrong with their listing."""
    try:
        return data.splits(), []
    except DataError as error:
        whole = str(error)
    splits: dict[str, list[ImageRecord]] = {}
    errors: list[str] = []
    for role, split in ("train", "train"), ("normal", "validation"), ("test", "test"):
        try:
            splits[role] = data.records(split)
        except ListingError as error:
            splits[role] = error.records
            errors += error.problems
        except DataError as error:
            errors.append(str(error))
    return splits, errors or [whole]


def look(role: str, record: ImageRecord, geometry: Geometry | None) -> Look:
    """Read an image and its mask; without a geometry every anomalous pixel is visible."""
    try:
        image = read_image(record.image)
        size = (image.shape[0], image.shape[1])
        fate = "missing" if record.label and record.mask is None else "visible"
        digest = hashlib.blake2b(repr(size).encode() + image.tobytes()).digest()
        seen = Look(role, record, [], size, kind_of(record.image), digest, fate)
        if record.mask is None:
            return seen
        mask = read_mask(record.mask, size)
    except DataError as error:
        return ...
    if geometry is None or not mask.any():
        return seen._replace(fate="visible" if mask.any() else "empty")
    placement = geometry.place(size)
    if not mask[placement.source.slices].any():
        return seen._replace(fate="cut")
    return seen._replace(fate="visible" if resize_mask(mask, placement, geometry.size).any() else "lost")


