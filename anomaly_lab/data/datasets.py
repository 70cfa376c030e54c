"""From decoded images to batches: what one row becomes, and in which order rows are drawn."""

import math
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from anomaly_lab.data.augment import Augmentation
from anomaly_lab.data.images import Geometry, Placement, read_image, read_mask, resize_image, resize_mask
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import EvalBatch, ImageRecord, TrainBatch

HOLDOUT, ORDER, CONTENT = 1, 2, 3  # first part of each random address, so that no two streams are the same
Sampling = Literal["shuffle", "replacement"]


class Split(NamedTuple):
    """Records with their decoded images; row i of each belongs to record i."""

    records: list[ImageRecord]
    images: np.ndarray  # (N, H, W, 3) uint8
    masks: np.ndarray  # (N, H, W) bool; all False where a record has no mask
    placements: list[Placement]
    sizes: list[tuple[int, int]]  # (H, W) of the original images


Moving = Callable[[np.ndarray, np.ndarray | None, Path], tuple[np.ndarray, np.ndarray | None]]


def decode(records: list[ImageRecord], geometry: Geometry, memory_gb: float, moving: Moving | None = None) -> Split:
    """Read every record once, by threads, at the network's size; forked workers share the arrays.

    ``moving`` brings a photograph, (h, w, 3) uint8, and its mask to where its part belongs, before crop and resize.
    Beyond ``memory_gb`` the images lie in an unnamed temporary file, which ends with the process.

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

    def read(row: int) -> tuple[Placement, tuple[int, int]]:
        image, mask = read_image(records[row].image), None
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


class Draw(NamedTuple):
    """The address of one training image; its random generator is a function of (seed, epoch, position) alone."""

    epoch: int
    position: int  # in the epoch; a row may be drawn twice
    row: int  # of the images, one after the other for each copy
    pseudo: bool  # whether synthesis gets it


@final
class AddressedSampler(Sampler[Draw]):
    """Draws each row once (``shuffle``) or independently (``replacement``), the same for any number of workers.

    With a ratio these stay normal; round(ratio * size) pseudo images of rows as different as can be stand among them.
    """

    def __init__(self, size: int, seed: int, sampling: Sampling, ratio: float | None = None) -> None:
        self.size, self.seed, self.sampling, self.epoch = size, seed, sampling, 0
        self.ratio, self.added = ratio, round((ratio or 0) * size)
        if ratio and not self.added:
            raise ConfigError(f"synthesis.ratio: {ratio} of {size} training images is none; give 0, or {1 / size:.2g}")

    def set_epoch(self, epoch: int) -> None:
        """Is called by Lightning before each epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size + self.added

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((ORDER, self.seed, self.epoch))
        rows = rng.permutation(self.size) if self.sampling == "shuffle" else rng.integers(self.size, size=self.size)
        order = np.arange(len(self))
        if self.added:
            rows = np.concatenate([rows, *(rng.permutation(self.size) for _ in range(-(-self.added // self.size)))])
            order = rng.permutation(order)
        pseudo = order >= (0 if self.ratio is None else self.size)
        return (Draw(self.epoch, i, int(rows[at]), bool(pseudo[i])) for i, at in enumerate(order))


@final
class TrainDataset(Dataset[TrainBatch]):
    """Augments, then synthesises; in the worker. Tensors stay uint8 until they are on the device."""

    def __init__(self, images: np.ndarray, augment: Augmentation | None, synthesis: Synthesizer, seed: int) -> None:
        self.images, self.augment, self.synthesis, self.seed = images, augment, synthesis, seed

    def __getitem__(self, draw: Draw) -> TrainBatch:
        rng = np.random.default_rng((CONTENT, self.seed, draw.epoch, draw.position))
        copy, row = divmod(draw.row, len(self.images))
        untouched = self.augment is None or (self.augment.copies > 0 and copy == 0)
        clean = self.images[row] if self.augment is None or untouched else self.augment(self.images[row], rng)
        image, mask = self.synthesis(clean, rng) if draw.pseudo else (clean, np.zeros(clean.shape[:2], bool))
        return TrainBatch(as_tensor(image), as_tensor(clean), torch.from_numpy(mask))


@final
class EvalDataset(Dataset[EvalBatch]):
    """Batches of images as they are, with their ground truth at the network's resolution, in the records' order."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.split.records) / self.batch_size)

    def __getitem__(self, batch: int) -> EvalBatch:
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        image = torch.from_numpy(np.ascontiguousarray(self.split.images[rows].transpose(0, 3, 1, 2)))
        mask, records = torch.from_numpy(self.split.masks[rows].copy()), self.split.records[rows]
        label = torch.tensor([record.label for record in records])
        return EvalBatch(image, mask, label, torch.arange(len(records)) + rows.start)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """Return the (H, W, 3) uint8 image as a (3, H, W) uint8 tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
