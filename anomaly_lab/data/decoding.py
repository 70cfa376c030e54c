"""From files to decoded arrays: each split is read once, at the network's size."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any, NamedTuple, final

import numpy as np

from anomaly_lab.data.geometry import Geometry, Placement, resize_image, resize_mask
from anomaly_lab.data.images import memory_needed, read_image, read_mask
from anomaly_lab.types import ImageRecord


class Split(NamedTuple):
    """Records with their decoded images; row i of each belongs to record i."""

    records: list[ImageRecord]
    images: np.ndarray  # (N, H, W, 3) uint8
    masks: np.ndarray  # (N, H, W) bool; all False where a record has no mask
    placements: list[Placement]
    sizes: list[tuple[int, int]]  # (H, W) of the original images


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


def decode(
    records: list[ImageRecord], geometry: Geometry, memory_gb: float, moving: Moving | None = None
) -> Split:
    """Read every record once, by threads, at the network's size; forked workers share the arrays.

    ``moving`` brings a photograph, (h, w, 3) uint8, and its mask to where its part belongs, before crop and
    resize. Beyond ``memory_gb`` the images lie in an unnamed temporary file, which ends with the process. The
    photographs that are being read at once take no more than that either, however many cores there are.

    Raises:
        DataError: naming the first file, in the order of the records, that cannot be used.
    """
    shape = (len(records), *geometry.size)
    if 3 * np.prod(shape) > memory_gb * 2**30:
        with tempfile.TemporaryFile() as store:  # the map outlives the handle
            images: np.ndarray = np.memmap(store, np.uint8, "w+", shape=(*shape, 3))
    else:
        images = np.zeros((*shape, 3), np.uint8)
    masks = np.zeros(shape, bool)
    room = Room(memory_gb)

    def read(row: int) -> tuple[Placement, tuple[int, int]]:
        with room.reading(records[row].image):
            return read_at_once(row)

    def read_at_once(row: int) -> tuple[Placement, tuple[int, int]]:
        image = read_image(records[row].image)
        mask = None
        size = (image.shape[0], image.shape[1])
        placement = geometry.place(size)
        if (file := records[row].mask) is not None:
            mask = read_mask(file, size)
        if moving is not None:
            image, mask = moving(image, mask, records[row].image)
        images[row] = resize_image(image, placement, geometry.size)
        if mask is not None:
            masks[row] = resize_mask(mask, placement, geometry.size)
        return placement, size

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(read, range(len(records))))
    return Split(records, images, masks, [placement for placement, _ in done], [size for _, size in done])
