"""The contract of a data set: it lists records; splitting, decoding and batching are the same for all."""

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from anomaly_lab.data import decoding
from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.data.batches import (
    AddressedSampler,
    EvalDataset,
    Normals,
    TrainDataset,
    check_loading,
    loading,
    shared,
)
from anomaly_lab.data.decoding import Split
from anomaly_lab.data.geometry import Geometry, sides_of
from anomaly_lab.data.images import WHITES, Reading, read_image, white_of
from anomaly_lab.data.listed import Listed
from anomaly_lab.data.part_box import part_box
from anomaly_lab.data.registration import decode_registered
from anomaly_lab.errors import ConfigError
from anomaly_lab.ranks import here
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import Resize
from anomaly_lab.types import SAME_RUN, EvalBatch, TrainBatch, in_unit_range

FEW_NORMALS = 16  # training images that centre the histograms where nothing is held out


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyDataModule(Listed, L.LightningDataModule, ABC):
    """A category of a data set, from files to batches; what is said of its files stands in `Listed`.

    Attributes:
        image_size: side, or [height, width], in pixels of what the network sees before ``center_crop``.
        crop: [top, left, height, width] as fractions of the photograph, or ``auto``: the part's box on
            training images.
        resize: how photographs, and a synthesis' textures, come to that size (`synthesis.geometry.resized`).
        register: turns and shifts every image onto the first training image, for rigid parts that lie
            differently.
        sampling: ``shuffle`` draws each row once an epoch, ``replacement`` at random (draem.md, note 6).
        white: the value that is white in files of integers beyond 8 bits, one for all images; ``auto`` is the
            smallest of `WHITES` that holds every value of the training images.
        max_megapixels: a photograph of more is an error.
        memory_gb: the images of a split go to a temporary file if they take more, decoded; photographs are
            read at once as far as they fit.
    """

    real_labels: ClassVar[bool] = True  # false: the test set's defects are synthesised
    image_size: int | Sequence[int]
    center_crop: int | None
    crop: Literal["auto"] | Sequence[float] | None
    fit: Literal["stretch", "pad", "pad_background"]
    resize: Resize
    register: bool = field()  # field: else ABCMeta.register would be its default
    augment: Augmentation | None
    synthesis: Synthesizer
    sampling: Literal["shuffle", "replacement"]
    batch_size: int
    workers: Annotated[int, SAME_RUN]
    white: Literal["auto"] | int
    max_megapixels: Annotated[float, SAME_RUN]
    memory_gb: Annotated[float, SAME_RUN]

    def __post_init__(self) -> None:
        L.LightningDataModule.__init__(self)
        super().__post_init__()
        if self.white != "auto" and not 1 <= self.white <= WHITES[-1]:
            raise ConfigError(f"data.white: {self.white}; give auto or a value from 1 to {WHITES[-1]}")
        if self.train_anomalies and self.augment is not None:
            raise ConfigError("data.augment: goes with data.train_anomalies=0 alone; give null")
        check_loading(self.batch_size, self.workers)
        sides_of(self.image_size)
        self.sources: Sequence[Path] = ()  # of training images that a data set writes from others
        self.crop_box: Sequence[float] | None = None
        self.crop_said = ""  # why `crop=auto` took that box, or none
        self.reference: np.ndarray | None = None  # (h, w, 3) uint8; others are registered to it

    @cached_property
    def reading(self) -> Reading:
        """How photographs become arrays; ``white=auto`` looks at the training images once."""
        return self.reading_of([record.image for record in self.roles["train"]])

    def reading_of(self, training: Sequence[Path]) -> Reading:
        """Return how photographs are read where these are the training images."""
        files = self.sources or training
        white = white_of(files, self.max_megapixels) if self.white == "auto" else self.white
        return Reading(white, self.max_megapixels)

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers should know of the files; after `setup`."""
        notes = [self.reading.said(found=self.white == "auto"), self.crop_said]
        notes += [
            note for split in (self.train, self.normal, self.test, self.anomalies) for note in split.notes
        ]
        return [note for note in notes if note]

    @cached_property
    def order(self) -> AddressedSampler:
        """Which images an epoch draws.

        Raises:
            ConfigError: the ratio of pseudo images is positive, but gives none.
        """
        normals = len(self.roles["train"]) * (1 + (self.augment.copies if self.augment else 0))
        size = normals + len(self.roles["anomalies"])
        return AddressedSampler(size, self.seed, self.sampling, self.synthesis.ratio)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that an epoch of training has, the last of them perhaps smaller."""
        return math.ceil(len(self.order) / self.batch_size)

    @property
    def normals(self) -> Normals:
        """The training images as they are, batch by batch; decoded by `setup`."""
        return Normals(lambda: self.train.images, self.batch_size)

    def described(self) -> dict[str, Any]:
        """Return what a manifest says of the data, as plain types; after `setup`."""
        counts = {role: len(records) for role, records in self.roles.items()}
        counts |= {"anomalous": sum(r.label for r in self.roles["test"]), "unmasked": self.unmasked()}
        counts |= {"left_out": len(self.left_out.files)} | decoding.lost_in(self.test, self.anomalies)
        crop = {"crop_box": self.crop_box and list(self.crop_box), "crop_said": self.crop_said}
        found = {"white": self.reading.white, "added_pseudo_images": self.order.added}
        return {"counts": counts, **crop, **found}

    def geometry(self) -> Geometry:
        """Return how a photograph becomes the network's image; `crop=auto` sees training images, once."""
        if self.crop_box is None and self.crop == "auto":
            files = [record.image for record in self.roles["train"]]
            self.crop_box, self.crop_said = part_box(files, self.reading, register=self.register)
        elif self.crop_box is None and self.crop != "auto":
            self.crop_box = self.crop
        crop = None if self.crop_box is None else tuple(self.crop_box)
        return Geometry(sides_of(self.image_size), self.fit, self.center_crop, crop, self.resize)

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Decode everything once, so that a bad file ends the run before its first step."""
        if "train" in self.__dict__:
            return
        self.unmasked()
        key = (self.fingerprint, self.geometry(), self.register, self.reading, self.memory_gb)
        self.reference, decoded = decoding.once(key, self._decoded)
        pairs = zip(decoded, self.roles.values(), strict=True)
        found = (split._replace(records=records) for split, records in pairs)
        self.train, self.normal, self.test, self.anomalies = found
        self.synthesis.setup(list(self.train.images))

    def _decoded(self) -> tuple[np.ndarray | None, list[Split]]:
        how = (self.geometry(), self.reading, self.memory_gb)
        roles = self.roles.values()
        if not self.register:
            return None, [decoding.decode(records, *how) for records in roles]
        reference = read_image(self.roles["train"][0].image, self.reading)
        return reference, [decode_registered(records, *how, reference) for records in roles]

    def train_dataloader(self) -> DataLoader[TrainBatch]:
        """Return the training batches of one epoch; order and content depend on (seed, epoch) alone."""
        how = (self.augment, self.synthesis, self.seed)
        dataset = TrainDataset(self.train.images, *how, self.anomalies.images, self.anomalies.masks)
        return DataLoader(dataset, **shared(self.order, self.batch_size), **loading(self.workers))

    def step(self, batch: int) -> here.Step:
        """Return how the ranks share a batch of an epoch of training."""
        return here.step_of(min(self.batch_size, len(self.order) - batch * self.batch_size))

    def test_dataloader(self) -> DataLoader[EvalBatch]:
        """Return the test set, in the order of its records; of several ranks each has its own part of it."""
        return DataLoader(EvalDataset(self.test.images, self.batch_size), None, **loading(self.workers))

    def centring_images(self) -> np.ndarray:
        """Return the (N, H, W, 3) uint8 normals kept for the threshold, or else a few of training."""
        images: np.ndarray = self.normal.images if self.normal.records else self.train.images[:FEW_NORMALS]
        return images

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Make [0, 1] float32 of the uint8 images, on the device: a quarter of the bytes travel."""
        changed = {
            name: in_unit_range(batch._asdict()[name]) for name in ("image", "clean") if name in batch._fields
        }
        return batch._replace(**changed)
