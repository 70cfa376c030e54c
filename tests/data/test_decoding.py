"""How photographs are read: as many at once as fit the memory, and again where they are resized otherwise."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data import decoding, images
from anomaly_lab.data.decoding import decode
from anomaly_lab.data.geometry import Geometry
from anomaly_lab.data.images import memory_needed
from anomaly_lab.types import ImageRecord
from tests.support.data_modules import mvtec, read, ready
from tests.support.trees import mvtec_tree

GEOMETRY = Geometry((8, 8), "stretch", None, None, "antialias")
MIB = 2**20


class Reading:
    """Stands for the reader: knows what is being read, and lets ``together`` go on only when so many are."""

    def __init__(self, sizes: list[int], together: int) -> None:
        self.sizes = sizes
        self.barrier = threading.Barrier(together, timeout=30)
        self.lock = threading.Lock()
        self.now: set[int] = set()
        self.most: list[set[int]] = []

    def __call__(self, path: Path, how: images.Reading) -> tuple[np.ndarray, bool]:
        row = int(path.stem)
        with self.lock:
            self.now.add(row)
            self.most.append(set(self.now))
        self.barrier.wait()
        with self.lock:
            self.now.remove(row)
        return np.full((8, 8, 3), row, np.uint8), False

    def bytes_at_once(self) -> int:
        return max(sum(self.sizes[row] for row in rows) for rows in self.most)


@pytest.mark.parametrize(
    ("sizes", "mebibytes", "together"),
    [
        ([100] * 12, 300, 3),
        ([100] * 12, 399, 3),
        ([100, 90, 80, 20, 5, 1] * 2, 100, 1),
        ([100] * 4, 50, 1),  # each is too large, and goes alone
        ([100] * 4, 0, 1),
        ([1] * 56, 1000, 28),  # there is room for all cores
    ],
)
def test_what_is_read_at_once_fits_the_memory(monkeypatch, sizes, mebibytes, together):
    reading = Reading(sizes, together)
    for name in ("cpu_count", "process_cpu_count"):
        monkeypatch.setattr(os, name, lambda: 28, raising=False)
    monkeypatch.setattr(decoding, "memory_needed", lambda path: sizes[int(path.stem)] * MIB)
    monkeypatch.setattr(decoding, "read_clipped", reading)
    files = [Path(f"{row}.png") for row in range(len(sizes))]
    records = [ImageRecord(file, None, label=False, defect="good") for file in files]
    split = decode(records, GEOMETRY, images.ALONE, mebibytes / 1024)
    assert reading.bytes_at_once() <= max(mebibytes, *sizes)
    assert split.images[:, 0, 0, 0].tolist() == list(range(len(sizes)))


def test_what_an_image_takes_is_known_from_its_file(tmp_path):
    values = np.zeros((40, 50, 3), np.uint8)
    for name, mode in (("a.png", "RGB"), ("b.jpg", "L"), ("c.tif", "RGB"), ("d.bmp", "RGB")):
        Image.fromarray(values).convert(mode).save(tmp_path / name)
        assert memory_needed(tmp_path / name) == 40 * 50 * 16
    Image.fromarray(values).convert("RGBA").save(tmp_path / "e.png")
    cv2.imwrite(str(tmp_path / "f.png"), values.astype(np.uint16))
    Image.fromarray(values[..., 0].astype(np.uint16)).save(tmp_path / "g.tif")
    for name in ("e.png", "f.png", "g.tif"):
        assert memory_needed(tmp_path / name) == 40 * 50 * 64
    (tmp_path / "h.png").write_text("no image")
    for name in ("h.png", "absent.png"):
        assert memory_needed(tmp_path / name) == 0


def test_pils_blocks_are_large_enough_to_be_given_back():
    assert (
        Image.core.get_block_size() > 2**25
    )  # glibc maps by itself what is larger, whatever was freed before


def test_another_way_to_resize_decodes_again(tmp_path):
    tree = mvtec_tree(tmp_path)
    smooth, sharp, again = (
        ready(mvtec(tree, image_size=16, resize=way)) for way in ("antialias", "opencv", "antialias")
    )
    assert np.array_equal(smooth.test.images, again.test.images)
    assert sharp.test.images.std() > smooth.test.images.std()
    for record, image in zip(sharp.test.records, sharp.test.images, strict=True):
        assert np.array_equal(image, cv2.resize(read(record.image), (16, 16)))
