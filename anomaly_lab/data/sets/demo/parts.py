"""Three generated inspection tasks in the layout of MVTec AD: a woven fabric, a hex nut, a packaged chip.

Normal images vary in pose, light, exposure and material, so that no global statistic tells a defect from
them.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_lab.data.sets.demo.canvas import SIDE, Drawing, Scene, camera
from anomaly_lab.data.sets.demo.chip import chip
from anomaly_lab.data.sets.demo.defects import crack, dent, deposit, fibre, hole, scratch, stain
from anomaly_lab.data.sets.demo.scenes import nut, weave
from anomaly_lab.errors import DataError

# Another look is another version: old folders are then drawn anew.
VERSION = "2"
SEED = 3
TRAIN = 64
GOOD = 20
PER_DEFECT = 6
MARK = ".demo"  # holds the version; written last

SurfaceDefect = Callable[[Scene, np.random.Generator], Drawing]


def own(kind: str) -> SurfaceDefect:
    """Return the defect that the part itself draws."""
    return lambda scene, rng: scene.own[kind](rng)


PARTS: dict[str, tuple[Callable[[np.random.Generator], Scene], dict[str, SurfaceDefect]]] = {
    "weave": (
        weave,
        {
            "cut": partial(crack, width=(1.4, 1.9), jag=0.25, fork=4),
            "foreign_fibre": partial(fibre, colours=((0.75, 0.2, 0.15), (0.2, 0.3, 0.7), (0.92, 0.92, 0.88))),
            "hole": hole,
            "missing_yarn": own("missing_yarn"),
            "oil_stain": partial(stain, absorb=(0.45, 0.52, 0.62), radius=(11, 18)),
        },
    ),
    "nut": (
        nut,
        {
            "crack": partial(crack, width=(0.9, 1.3), jag=0.9, fork=19),
            "dent": dent,
            "notch": own("notch"),
            "rust": partial(deposit, colour=(0.44, 0.19, 0.07), radius=(9, 14)),
            "scratch": scratch,
        },
    ),
    "chip": (
        chip,
        {
            "bent_pin": own("bent_pin"),
            "crack": partial(crack, width=(1.1, 1.5), jag=0.9, fork=19),
            "flux_residue": partial(deposit, colour=(0.72, 0.70, 0.62), radius=(8, 13)),
            "missing_pin": own("missing_pin"),
            "scratch": scratch,
            "solder_bridge": own("solder_bridge"),
        },
    ),
}
CATEGORIES: tuple[str, ...] = tuple(PARTS)


def plan(category: str) -> Iterator[tuple[str, str, int]]:
    """Yield (split, kind, number) of every picture; the kind is "good" or a defect."""
    yield from (("train", "good", i) for i in range(TRAIN))
    yield from (("test", "good", i) for i in range(GOOD))
    yield from (("test", kind, i) for kind in PARTS[category][1] for i in range(PER_DEFECT))


def render(
    category: str, split: str, kind: str, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a picture (SIDE, SIDE, 3) RGB, the same one without its defect, and the mask (SIDE, SIDE).

    The two pictures are equal outside the mask: they share the part, the light and the noise.
    """
    part, defects = PARTS[category]
    kinds = ("good", *defects)
    address = (SEED, CATEGORIES.index(category), ("train", "test").index(split), kinds.index(kind), number)
    rng = np.random.default_rng(address)
    expose = camera(rng)
    scene = part(rng)
    clean = expose(scene.image)
    if kind == "good":
        return clean, clean, np.zeros((SIDE, SIDE), bool)
    image, shape = defects[kind](scene, rng)
    # Fainter edges stay clean, so that masks are exact.
    mask = cv2.resize(shape, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.15
    return np.where(mask[..., None], expose(image), clean), clean, mask


def image_name(split: str, kind: str, number: int) -> str:
    """Return where a picture lies in its category's folder."""
    return f"{split}/{kind}/{number:03d}.png"


def mask_name(kind: str, number: int) -> str:
    """Return where a defect's mask lies in its category's folder."""
    return f"ground_truth/{kind}/{number:03d}_mask.png"


def listing(category: str) -> set[str]:
    """Return the names of all files of a complete category."""
    masks = {mask_name(kind, number) for _, kind, number in plan(category) if kind != "good"}
    return {MARK} | masks | {image_name(*picture) for picture in plan(category)}


def complete(folder: Path, category: str) -> bool:
    """Tell whether the folder holds this version's category, whole."""
    mark = folder / MARK
    current = mark.is_file() and mark.read_text() == VERSION
    return current and all((folder / name).is_file() for name in listing(category))


def save(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB or a grey image as PNG, always to the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(
        ".png", image[..., ::-1] if image.ndim == 3 else image, [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    path.write_bytes(data.tobytes())


def draw(folder: Path, category: str) -> None:
    """Draw all pictures and masks of a category, several at once; the mark that it is complete comes last."""

    def draw_one(picture: tuple[str, str, int]) -> None:
        split, kind, number = picture
        image, _, mask = render(category, split, kind, number)
        save(folder / image_name(split, kind, number), image)
        if kind != "good":
            save(folder / mask_name(kind, number), mask * np.uint8(255))

    # Few, as a picture takes a dozen planes of a megabyte while it is drawn.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in pool.map(draw_one, plan(category)):
            pass  # raises what drawing raised, and leaves out what has not begun
    (folder / MARK).write_text(VERSION)


def write_demo(root: Path, category: str) -> None:
    """Write ``root/category`` in MVTec AD's layout, unless it is there.

    It is written whole or not at all, with the same bytes every time. A killed run leaves at most a hidden
    draft, which the next one replaces, and two runs at once wait for each other.

    Raises:
        DataError: the folder holds files that the demo never wrote, or cannot be written.
    """
    folder = root.expanduser() / category
    draft = root.expanduser() / f".{category}.draft"
    if complete(folder, category):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{category}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete(folder, category):
                refuse_strangers(folder, category)
                shutil.rmtree(draft, ignore_errors=True)
                draw(draft, category)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the demo data ({error}); set data.root to another folder"
        ) from error


def refuse_strangers(folder: Path, category: str) -> None:
    """Raise DataError rather than delete a file that is not the demo's."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if MARK not in names and (strangers := sorted(names - listing(category))):
        raise DataError(
            f"{folder / strangers[0]}: not the demo's, and in its place; set data.root to another folder"
        )
