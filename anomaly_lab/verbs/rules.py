"""What can be wrong with the images and masks of a data set, found by looking at every file."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.data import registration
from anomaly_lab.data.decoding import MOST, grey_of
from anomaly_lab.data.geometry import Geometry, lost_of, resize_image
from anomaly_lab.data.images import WHITES, Reading, read_clipped, read_mask
from anomaly_lab.data.listing import images
from anomaly_lab.errors import DataError
from anomaly_lab.evaluation.doubts import Observed, of_pictures, of_threshold
from anomaly_lab.types import ImageRecord

# the spreads: largest by smallest
FEW_IMAGES = 10
ASPECT_SPREAD = 1.2
SIZE_SPREAD = 2.0
FATES = {
    "missing": "anomalous images have no mask; without all of them there are no pixel metrics",
    "empty": "anomalous images have a mask in which no pixel is anomalous",
    "most": "anomalous images have a mask that marks more than half of the image; where black marks the"
    " defect, invert the mask",
    "cut": "anomalies lie outside data.crop or data.center_crop",
    "clipped": "anomalies lie partly outside data.crop or data.center_crop",
    "lost": "anomalies are too small for data.image_size: the network's masks of them are empty",
    "thinned": "anomalies have regions too small for data.image_size: the network's masks lack them",
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
    fates: tuple[str, ...] = ()  # of FATES, of its anomaly; none if the network sees it whole
    clipped: bool = False  # it has brighter values than white
    grey: float | None = None  # mean grey level of what the network sees of it, before data.register


def look(
    role: str,
    record: ImageRecord,
    geometry: Geometry | None,
    reading: Reading,
    reference: np.ndarray | None = None,
) -> Look:
    """Read an image and its mask, which is registered onto a reference, (h, w, 3) uint8, if there is one."""
    seen = Look(role, record, [])
    try:
        image, clipped = read_clipped(record.image, reading)
        size = (image.shape[0], image.shape[1])
        digest = hashlib.blake2b(repr(size).encode() + image.tobytes()).digest()
        grey = None
        if geometry is not None:
            grey = grey_of(resize_image(image, geometry.place(size), geometry))
        seen = Look(role, record, [], size, kind_of(record.image), digest, grey=grey)
        return seen._replace(fates=fates_of(record, image, geometry, reference), clipped=clipped)
    except DataError as error:
        return seen._replace(errors=[str(error)])


def kind_of(path: Path) -> str:
    """Return a readable image's format and mode, such as ``PNG RGB``."""
    with Image.open(path) as file:
        wide = ";16" in str(file.tile[:1]) and ";16" not in file.mode
        return f"{file.format} {file.mode}{' 16 bit' if wide else ''}"


def fates_of(
    record: ImageRecord, image: np.ndarray, geometry: Geometry | None, reference: np.ndarray | None
) -> tuple[str, ...]:
    """Return what becomes of the anomaly of an (h, w, 3) uint8 image on its way to the network.

    Without a geometry none is cut or lost.
    """
    size = (image.shape[0], image.shape[1])
    if record.mask is None:
        return ("missing",) if record.label else ()
    mask = read_mask(record.mask, size)
    if not mask.any():
        return ("empty",)
    if mask.mean() > MOST:
        return ("most",)
    if geometry is None:
        return ()
    if reference is not None and reference.shape == image.shape:  # other sizes are said of all files at once
        mask = registration.warped_mask(mask, registration.register(image, reference))
    lost = lost_of(mask, geometry.place(size))
    if lost.cut == 1:
        return ("cut",)
    small = ("lost" if lost.regions == lost.seen else "thinned",) if lost.regions else ()
    return (("clipped",) if lost.cut else ()) + small


def duplicates(looks: list[Look]) -> Iterator[Finding]:
    """Find images of equal pixels."""
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for seen in looks:
        groups[seen.digest].append(seen)
    found: dict[tuple[Literal["problem", "warning"], str], list[str]] = defaultdict(list)
    for same in (group for digest, group in groups.items() if digest and len(group) > 1):
        if len({seen.record.label for seen in same}) == 2:
            files = found["problem", "stand among the good and among the defective ones"]
        elif len({seen.role for seen in same}) > 1:
            files = found["problem", "stand in more than one of train, normal and test"]
        else:
            files = found["warning", f"stand in {same[0].role} more than once"]
        files.append(" = ".join(str(seen.record.image) for seen in same))
    for (level, text), files in found.items():
        yield Finding(level, f"images of the same pixels {text}: {len(files)}", files)


def masks(looks: list[Look], *, required: bool) -> Iterator[Finding]:
    """Find anomalies that are marked nowhere, or where the network cannot see them."""
    anomalous = [seen for seen in looks if seen.record.label]
    for fate, what in FATES.items():
        files = [str(seen.record.image) for seen in anomalous if fate in seen.fates]
        stops = fate == "empty" or (fate == "missing" and required)
        if files:
            yield Finding(
                "problem" if stops else "warning", f"{len(files)} of {len(anomalous)} {what}", files
            )


def brightness(looks: list[Look], white: int) -> Iterator[Finding]:
    """Find files beyond 8 bits whose range is not all used, and images that are brighter than it."""
    if white < WHITES[-1]:
        text = f"{white} is white in files of more than 8 bits, in all images alike"
        yield Finding("warning", f"{text}; data.white={WHITES[-1]} keeps their full range", [])
    if files := [str(seen.record.image) for seen in looks if seen.clipped]:
        text = f"{len(files)} of {len(looks)} images have values brighter than {white}, which are clipped"
        yield Finding("warning", f"{text}; data.white sets what is white", files)


def masks_of_normals(looks: list[Look], reading: Reading) -> Iterator[Finding]:
    """Find good test images whose mask has an anomaly; it may lie beside the folders of the others' masks."""
    good = [seen for seen in looks if seen.role == "test" and not seen.record.label]
    homes = {seen.record.image.parent for seen in good}
    tops = {seen.record.mask.parent.parent for seen in looks if seen.record.mask}
    near = [
        mask
        for folder in {top / home.name for top in tops for home in homes} - homes
        for mask in images(folder)
    ]
    by_stem = {mask.stem.removesuffix("_mask"): mask for mask in near}
    files = []
    for seen in good:
        mask = seen.record.mask or by_stem.get(seen.record.image.stem)
        again = look(seen.role, seen.record._replace(mask=mask), None, reading) if mask else seen
        if mask and "empty" not in again.fates and not again.errors:
            files.append(f"{seen.record.image} = {mask}")
    if files:
        yield Finding("problem", f"{len(files)} good images have a mask with anomalous pixels", files)


def enlarged(looks: list[Look], geometry: Geometry | None) -> Iterator[Finding]:
    """Find images that are much smaller than what the network sees of them."""
    sizes = {seen.record.image: seen.size for seen in looks if seen.size}
    small = [
        str(image) for image, size in sizes.items() if geometry and 2 * max(size) < max(geometry.image_size)
    ]
    if small:
        why = "data.image_size shows what is not there"
        text = f"{len(small)} of {len(sizes)} images are enlarged more than twice: {why}"
        yield Finding("warning", text, small)


def shapes(looks: list[Look], fit: str, *, register: bool) -> Iterator[Finding]:
    """Find sizes, aspects and file kinds that differ so much that a method may learn them."""
    sizes = [seen.size for seen in looks if seen.size]
    if not sizes:
        return
    if register and (
        odd := [str(seen.record.image) for seen in looks if seen.size and seen.size != sizes[0]]
    ):
        text = f"{len(odd)} of {len(sizes)} images have another size than the first training image"
        yield Finding("problem", f"{text}, which data.register=true does not take", odd)
    aspects = sorted(width / height for height, width in sizes)
    sides = sorted(max(size) for size in sizes)
    if fit == "stretch" and aspects[-1] / aspects[0] > ASPECT_SPREAD:
        text = f"width / height is {aspects[0]:.2g} to {aspects[-1]:.2g}"
        yield Finding(
            "warning", f"{text}: data.fit=stretch distorts each image differently; data.fit=pad does not", []
        )
    if sides[-1] / sides[0] > SIZE_SPREAD:
        text = f"the longer side is {sides[0]} to {sides[-1]} pixels"
        yield Finding("warning", f"{text}: after resizing, equal defects differ in size", [])
    kinds = Counter(seen.kind for seen in looks if seen.kind)
    if len(kinds) > 1:
        text = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        yield Finding(
            "warning", f"files of several kinds ({text}): a method may tell good from defective by that", []
        )


def counts(looks: list[Look]) -> Iterator[Finding]:
    """Find splits too small to learn from or to measure on."""
    train = sum(seen.role == "train" for seen in looks)
    if 0 < train < FEW_IMAGES:
        yield Finding("warning", f"only {train} images to train on", [])
    labels = {seen.record.label for seen in looks if seen.role == "test"}
    if len(labels) == 1:
        kind = "good" if labels == {True} else "defective"
        yield Finding(
            "warning", f"no {kind} images to test on: what needs both, like AUROC, cannot be measured", []
        )


def doubts(looks: list[Look], target: float, *, register: bool) -> list[str]:
    """Return what a run would find doubtful whatever its method, in its words.

    ``target`` is the share of false alarms that a threshold aims at. Where a run would ``register`` its
    images, which brings other parts of them into view, nothing is said of their light.
    """
    normal = {
        role: [seen for seen in looks if seen.role == role and not seen.record.label]
        for role in ("train", "normal", "test")
    }
    train, test = (
        np.array([s.grey for s in normal[role] if s.grey is not None]) for role in ("train", "test")
    )
    light = Observed() if register else Observed(training_grey=train, normal_grey=test)
    return [*of_threshold(len(normal["normal"]), target, len(normal["test"]), {}), *of_pictures(light)]
