"""From files to decoded arrays: each split is read once, at the network's size."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any, NamedTuple, final

import numpy as np

from anomaly_lab.data.geometry import Geometry, Lost, Placement, lost_of, resize_image, resize_mask
from anomaly_lab.data.images import Reading, memory_needed, read_clipped, read_mask
from anomaly_lab.errors import DataError
from anomaly_lab.types import ImageRecord


class Split(NamedTuple):
    """Records with their decoded images; row i of each belongs to record i."""

    records: list[ImageRecord]
    images: np.ndarray  # (N, H, W, 3) uint8
    masks: np.ndarray  # (N, H, W) bool; all False where a record has no mask
    placements: list[Placement]
    sizes: list[tuple[int, int]]  # (H, W) of the original images
    notes: list[str]  # what its files hold that may falsify numbers
    greys: np.ndarray  # (N,) float64, `grey_of` each
    lost: list[Lost]  # what of each mask does not reach the network


MOST = 0.5  # a defect covers less of the photograph, mostly: else black may be what marks it


@final
class Room:
    """Memory in which threads read photographs: who finds no room waits; what is larger goes alone."""

    def __init__(self, gigabytes: float) -> None:
        self.size = gigabytes * 2**30
        self.taken = 0
        self.changed = Condition()

    @contextmanager
    def reading(self, file: Path) -> Iterator[None]:
        """Hold what it takes to read an image and resize it."""
        size = memory_needed(file)
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + size <= self.size)
            self.taken += size
        try:
            yield
        finally:
            with self.changed:
                self.taken -= size
                self.changed.notify_all()


LAST: dict[Any, Any] = {}  # what was decoded last, under its key


def once(key: object, decoded: Callable[[], Any]) -> Any:
    """Return what ``decoded`` gives; it is not called if the last call had the same key.

    The next cell of a sweep mostly has.
    """
    if key not in LAST:
        LAST.clear()
        LAST[key] = decoded()
    return LAST[key]


Moving = Callable[[np.ndarray, np.ndarray | None, Path], tuple[np.ndarray, np.ndarray | None]]


class Seen(NamedTuple):
    """What is known of a record once its files were read."""

    placement: Placement
    size: tuple[int, int]  # (H, W) of the photograph
    clipped: bool  # it has brighter values than white
    marked: float | None  # share of the photograph that its mask marks; None without a mask
    grey: float  # of what the network sees, `grey_of` it
    lost: Lost  # of the mask, on its way to the network


def decode(
    records: list[ImageRecord],
    geometry: Geometry,
    reading: Reading,
    memory_gb: float,
    moving: Moving | None = None,
) -> Split:
    """Read every record once, by threads, at the network's size; forked workers share the arrays.

    ``moving`` brings a photograph, (h, w, 3) uint8, and its mask to where its part belongs, before crop and
    resize. Beyond ``memory_gb`` the images lie in an unnamed temporary file, which ends with the process. The
    photographs that are being read at once take no more than that either, however many cores there are.

    Raises:
        DataError: naming the first file, in the order of the records, that cannot be used; or the folder for
            temporary files, if it has no room.
    """
    shape = (len(records), *geometry.size)
    on_disk = 3 * np.prod(shape) > memory_gb * 2**30
    images = _on_disk((*shape, 3)) if on_disk else np.zeros((*shape, 3), np.uint8)
    masks = np.zeros(shape, bool)
    room = Room(memory_gb)

    def read(row: int) -> Seen:
        with room.reading(records[row].image):
            return read_at_once(row)

    def read_at_once(row: int) -> Seen:
        image, clipped = read_clipped(records[row].image, reading)
        mask = marked = None
        lost = Lost(0.0, 0, 0)
        size = (image.shape[0], image.shape[1])
        placement = geometry.place(size)
        if (file := records[row].mask) is not None:
            mask = read_mask(file, size)
            marked = float(mask.mean())
        if moving is not None:
            image, mask = moving(image, mask, records[row].image)
        images[row] = resize_image(image, placement, geometry)
        if mask is not None:
            masks[row] = resize_mask(mask, placement, geometry.size)
            lost = lost_of(mask, placement)
        return Seen(placement, size, clipped, marked, grey_of(images[row]), lost)

    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(read, range(len(records))))
    return Split(
        records,
        images,
        masks,
        placements=[one.placement for one in seen],
        sizes=[one.size for one in seen],
        notes=[*notes(records, seen, reading.white), *lost_masks(records, seen)],
        greys=np.array([one.grey for one in seen]),
        lost=[one.lost for one in seen],
    )


def notes(records: Sequence[ImageRecord], seen: Sequence[Seen], white: int) -> list[str]:
    """Say how many photographs are clipped, and how many masks of defective ones hardly can be right."""
    said = []
    pairs = list(zip(records, seen, strict=True))
    if clipped := [record.image for record, one in pairs if one.clipped]:
        text = f"{len(clipped)} of {len(pairs)} images have brighter values, which are clipped"
        said.append(f"data.white: {white} is white; {text}, among them {clipped[0]}")
    masked = [(record.mask, one.marked) for record, one in pairs if record.label and one.marked is not None]
    nothing = [mask for mask, share in masked if share == 0]
    most = [mask for mask, share in masked if share > MOST]
    if nothing or most:
        text = f"{len(nothing)} of {len(masked)} masks of defective images mark nothing"
        odd = (nothing + most)[0]
        said.append(f"{text}, {len(most)} more than half of the image, among them {odd}; `check` lists all")
    return said


def lost_masks(records: Sequence[ImageRecord], seen: Sequence[Seen]) -> Iterator[str]:
    """Say how many masks do not reach the network whole; their images stay anomalous all the same."""
    pairs = [(record.mask, one.lost) for record, one in zip(records, seen, strict=True) if record.mask]
    if cut := [mask for mask, lost in pairs if lost.cut > 0]:
        whole = sum(lost.cut == 1 for _, lost in pairs)
        text = f"of {len(cut)} of {len(pairs)} masks the crop cuts something away, of {whole} everything"
        yield f"data.crop, data.center_crop: {text}, among them {cut[0]}; `check` lists all"
    if small := [mask for mask, lost in pairs if lost.regions]:
        regions = sum(lost.regions for _, lost in pairs)
        text = f"of {len(small)} of {len(pairs)} masks {regions} regions are too small to have a pixel"
        yield f"data.image_size: {text}, among them {small[0]}; `check` lists all"


def lost_in(*splits: Split) -> dict[str, int]:
    """Return how many masks a crop cuts, wholly or partly, and how many lose a region by being resized."""
    lost = [one for split in splits for one in split.lost]
    cut = sum(one.cut > 0 for one in lost)
    return {"masks_cut": cut, "masks_with_lost_regions": sum(one.regions > 0 for one in lost)}


def grey_of(image: np.ndarray) -> float:
    """Return the mean grey level of an (H, W, 3) uint8 image, from every fourth row and column."""
    return float(image[::4, ::4].mean(dtype=np.float64))


def _on_disk(shape: tuple[int, ...]) -> np.ndarray:
    """Return a uint8 array in an unnamed file that has its room before anything is written to it.

    Where the disk gets full behind a map, the process dies without a word.
    """
    size = int(np.prod(shape))
    try:
        with tempfile.TemporaryFile() as store:  # the map outlives the handle
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(store.fileno(), 0, size)
            return np.memmap(store, np.uint8, "w+", shape=shape)
    except OSError as error:
        room = f"no room for {size / 2**30:.3g} GB of decoded images ({error.strerror})"
        ways_out = "set TMPDIR to a folder on another disk, or give a larger data.memory_gb"
        raise DataError(f"{tempfile.gettempdir()}: {room}; {ways_out}") from error
