"""How listed files are used: what is held out, what is labelled, what lacks a mask, what it all hashes to."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from anomaly_lab.data.content import content_hashes
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import ImageRecord

# First parts of random addresses, so that no two streams are the same; 2 and 3 are in data/batches.py, 4 is
# that of robustness.
HOLDOUT = 1
ANOMALIES = 5
# train, normal (kept for the threshold), test, and anomalies (labelled, for supervised methods)
Roles = Mapping[str, Sequence[ImageRecord]]


def held_out(
    train: Sequence[ImageRecord], share: float, seed: int
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return the training records without a drawn share of them, and that share, both in their order."""
    order = np.random.default_rng((HOLDOUT, seed)).permutation(len(train))
    kept = set(order[: round(share * len(train))].tolist())
    rest = [record for row, record in enumerate(train) if row not in kept]
    return rest, [record for row, record in enumerate(train) if row in kept]


def missing(
    train: Sequence[ImageRecord], normal: Sequence[ImageRecord], test: Sequence[ImageRecord], holdout: float
) -> str:
    """Return which images a category lacks, in words, and why if the holdout took them; nothing if none."""
    if train and test:
        return ""
    taken = f", as data.holdout={holdout:g} keeps all {len(normal)}" if normal and not train else ""
    return f"{'test' if train else 'training'} images{taken}"


def labelled(
    published: Sequence[ImageRecord], test: Sequence[ImageRecord], wanted: int | Literal["all"], seed: int
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return the anomalies that a supervised method learns from, and the test without them, both in order.

    They are drawn from the published ones, which are no part of the test, or else from the test. The draw
    takes the kinds of defect in turn, and of one seed a larger number holds a smaller one.

    Raises:
        ConfigError: there are not so many, or the test would have none left.
    """
    pool = list(published) or [record for record in test if record.label]
    most = len(pool) if published else len(pool) - 1
    if wanted == "all" and not published:
        way_out = f"give a number up to {most}, which leave the test set"
        raise ConfigError(f"data.train_anomalies: all, but no defects are published for training; {way_out}")
    count = len(pool) if wanted == "all" else wanted
    if not 0 <= count <= max(most, 0):
        raise ConfigError(f"data.train_anomalies: {count}; of {len(pool)} defective images give 0 to {most}")
    rng = np.random.default_rng((ANOMALIES, seed))
    kinds: dict[str, list[ImageRecord]] = {}
    for row in rng.permutation(len(pool)):
        kinds.setdefault(pool[row].defect, []).append(pool[row])
    in_turn = [record for turn in zip_longest(*kinds.values()) for record in turn if record is not None]
    drawn = set(in_turn[:count])
    return [record for record in pool if record in drawn], [record for record in test if record not in drawn]


def without_mask(test: Sequence[ImageRecord]) -> list[Path]:
    """Return the anomalous images that have no ground truth."""
    return [record.image for record in test if record.label and record.mask is None]


def file_lines(roles: Roles) -> list[str]:
    """Return the role, label, name and content's hash of every file. DataError: one cannot be read."""
    files = [
        (role, record.label, path)
        for role, records in roles.items()
        for record in records
        for path in (record.image, record.mask)
        if path
    ]
    digests = content_hashes([path for *_, path in files])
    return [
        f"{role} {label} {path.name} {digest}"
        for (role, label, path), digest in zip(files, digests, strict=True)
    ]


def fingerprint(lines: Sequence[str]) -> str:
    """Return 16 hex digits over what `file_lines` gave."""
    return _hashed(lines)


def content(lines: Sequence[str]) -> str:
    """Return the same over what no seed changes: which of the normals are held out does not count."""
    return _hashed(sorted(re.sub("^normal ", "train ", line) for line in lines))


def _hashed(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
