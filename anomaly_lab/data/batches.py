"""From decoded images to batches: what one row becomes, and in which order rows are drawn."""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import EvalBatch, TrainBatch, in_unit_range

# First parts of random addresses, so that no two streams are the same; 1 is data/splits.py's, 4 that of
# robustness.
ORDER = 2
CONTENT = 3
Sampling = Literal["shuffle", "replacement"]


class Draw(NamedTuple):
    """The address of one training image.

    Its random generator is a function of (seed, epoch, position) alone.
    """

    epoch: int
    position: int  # in the epoch; a row may be drawn twice
    row: int  # of the images, one after the other for each copy
    pseudo: bool  # whether synthesis gets it


def leave_signals(worker: int) -> None:  # noqa: ARG001 - torch's signature
    """Let Ctrl-C, which a terminal sends to workers, too, stop the main process alone: it needs them to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@final
class AddressedSampler(Sampler[Draw]):
    """Draws each row once (``shuffle``) or independently (``replacement``).

    It is the same for any number of workers. With a ratio these rows stay normal; round(ratio * size) pseudo
    images of rows as different as can be stand among them.
    """

    def __init__(self, size: int, seed: int, sampling: Sampling, ratio: float | None = None) -> None:
        self.size = size
        self.seed = seed
        self.sampling = sampling
        self.epoch = 0
        self.begun = (-1, 0)
        self.ratio = ratio
        self.added = round((ratio or 0) * size)
        if ratio and not self.added:
            raise ConfigError(
                f"synthesis.ratio: {ratio} of {size} training images is none; give 0, or {1 / size:.2g}"
            )

    def set_epoch(self, epoch: int) -> None:
        """Is called by Lightning before each epoch, also after a resume."""
        self.epoch = epoch

    def leave_out(self, epoch: int, draws: int) -> None:
        """Let this epoch begin after so many draws, which a training had before it was broken off."""
        self.begun = (epoch, draws)

    def __len__(self) -> int:
        return self.size + self.added

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((ORDER, self.seed, self.epoch))
        rows = (
            rng.permutation(self.size)
            if self.sampling == "shuffle"
            else rng.integers(self.size, size=self.size)
        )
        order = np.arange(len(self))
        if self.added:
            rows = np.concatenate(
                [rows, *(rng.permutation(self.size) for _ in range(-(-self.added // self.size)))]
            )
            order = rng.permutation(order)
        pseudo = order >= (0 if self.ratio is None else self.size)
        first = self.begun[1] if self.epoch == self.begun[0] else 0
        positions = range(first, len(order))
        return (Draw(self.epoch, i, int(rows[order[i]]), bool(pseudo[i])) for i in positions)


@final
class SharedBatches(Sampler[list[Draw]]):
    """The batches of an order, of each the draws that this rank takes: all ranks together draw each once.

    Nothing is padded. Where a batch has fewer images than there are ranks, those without one get its last
    one, which they compute along and which counts for nothing (`here.counts`).
    """

    def __init__(self, order: AddressedSampler, batch_size: int) -> None:
        self.sampler = order  # Lightning looks for it here, to tell it the epoch
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = iter(self.sampler)
        while batch := list(islice(draws, self.batch_size)):
            yield batch[here.rows(len(batch))] or batch[-1:]


def shared(order: AddressedSampler, batch_size: int) -> dict[str, Any]:
    """Return what tells a loader the batches of an order, or this rank's share of each."""
    if here.size() > 1:
        return {"batch_sampler": SharedBatches(order, batch_size)}
    return {"batch_size": batch_size, "sampler": order}


def check_loading(batch_size: int, workers: int) -> None:
    """Raise ConfigError unless a loader can work so."""
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"data.batch_size={batch_size}, data.workers={workers}: give at least 1 and 0")


def loading(workers: int) -> dict[str, Any]:
    """Return what tells a loader how to work, but not on what."""
    # Without a generator of its own a loader draws from torch's: each epoch, but once if workers persist.
    own = torch.Generator()
    fast: dict[str, Any] = {"persistent_workers": workers > 0}
    fast |= {"pin_memory": torch.cuda.is_available(), "worker_init_fn": leave_signals}
    return {"num_workers": workers, "generator": own, **fast}


@final
class TrainDataset(Dataset[TrainBatch]):
    """Augments, then synthesises; in the worker. Tensors stay uint8 until they are on the device.

    Rows beyond the normal images are labelled anomalies, which stay as they are.
    """

    def __init__(
        self,
        images: np.ndarray,
        augment: Augmentation | None,
        synthesis: Synthesizer,
        seed: int,
        anomalies: Sequence[np.ndarray] = (),
        masks: Sequence[np.ndarray] = (),
    ) -> None:
        self.images = images
        self.anomalies = anomalies
        self.masks = masks
        self.augment = augment
        self.synthesis = synthesis
        self.seed = seed

    def __getitem__(self, draw: Draw) -> TrainBatch:
        rng = np.random.default_rng((CONTENT, self.seed, draw.epoch, draw.position))
        copy, row = divmod(draw.row, len(self.images) + len(self.anomalies))
        if (defect := row - len(self.images)) >= 0:
            return self._labelled(defect)
        untouched = self.augment is None or (self.augment.copies > 0 and copy == 0)
        clean = self.images[row] if self.augment is None or untouched else self.augment(self.images[row], rng)
        image, mask = self.synthesis(clean, rng) if draw.pseudo else (clean, np.zeros(clean.shape[:2], bool))
        return TrainBatch(
            as_tensor(image), as_tensor(clean), torch.from_numpy(mask), torch.tensor(data=False)
        )

    def _labelled(self, row: int) -> TrainBatch:
        image = as_tensor(self.anomalies[row])
        return TrainBatch(image, image, torch.from_numpy(self.masks[row]), torch.tensor(data=True))


@final
class EvalDataset(Dataset[EvalBatch]):
    """Batches of (N, H, W, 3) uint8 images as they are, in their order; of several ranks each has its rows.

    Tensors stay uint8 until they are on the device.
    """

    def __init__(self, images: np.ndarray, batch_size: int) -> None:
        rows = here.rows(len(images))
        self.images = images[rows]
        self.first = rows.start
        self.batch_size = here.portion(batch_size)

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, batch: int) -> EvalBatch:
        start = batch * self.batch_size
        few = self.images[start : start + self.batch_size]
        image = torch.from_numpy(np.ascontiguousarray(few.transpose(0, 3, 1, 2)))
        return EvalBatch(image, self.first + torch.arange(start, start + len(few)))


@final
class Normals:
    """The training images as they are, from the first at each iteration.

    They are (B, 3, H, W) float32 in [0, 1] on the CPU.

    Args:
        images: gives the (N, H, W, 3) uint8 images, once they are decoded.
    """

    def __init__(self, images: Callable[[], np.ndarray], batch_size: int) -> None:
        self.images = images
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[torch.Tensor]:
        images = self.images()
        for start in range(0, len(images), self.batch_size):
            few = [as_tensor(image) for image in images[start : start + self.batch_size]]
            yield in_unit_range(torch.stack(few))


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """Return the (H, W, 3) uint8 image as a (3, H, W) uint8 tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
