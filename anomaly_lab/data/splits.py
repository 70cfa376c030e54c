"""How listed files are used: what is held out for the threshold, what lacks a mask, what it all hashes to."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anomaly_lab.data.content import content_hashes
from anomaly_lab.types import ImageRecord

# First part of the random address, so that no two streams are the same; 2 and 3 are in data/batches.py.
HOLDOUT = 1
Roles = Mapping[str, Sequence[ImageRecord]]  # train, normal (kept for the threshold) and test


def held_out(
    train: Sequence[ImageRecord], share: float, seed: int
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return the training records without a drawn share of them, and that share, both in their order."""
    order = np.random.default_rng((HOLDOUT, seed)).permutation(len(train))
    kept = set(order[: round(share * len(train))].tolist())
    rest = [record for row, record in enumerate(train) if row not in kept]
    return rest, [record for row, record in enumerate(train) if row in kept]


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
