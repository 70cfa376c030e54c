"""The contract of a data set: it lists records; splitting, decoding and batching are the same for all."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from anomaly_lab.data.augment import Augmentation
from anomaly_lab.data.content import content_hashes
from anomaly_lab.data.datasets import HOLDOUT, AddressedSampler, EvalDataset, Split, TrainDataset, as_tensor, decode
from anomaly_lab.data.images import Geometry, read_image
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import EVALUATION_ONLY, EvalBatch, ImageRecord, TrainBatch

LAST: dict[Any, tuple[Any, list[Split]]] = {}  # what was decoded last: the next cell of a sweep mostly wants it again


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyDataModule(L.LightningDataModule, ABC):
    """A category of a data set, from files to batches.

    Attributes:
        image_size: side, or [height, width], in pixels of what the network sees before ``center_crop``.
        crop: [top, left, height, width] as fractions of the photograph, or ``auto``: the part's box on training images.
        register: turns and shifts every image onto the first training image, for rigid parts that lie differently.
        masks: ``required`` makes an anomalous test image without a mask an error; ``auto`` drops the pixel metrics.
        holdout: share of the training normals kept for a threshold, unless the data set has a validation folder.
        sampling: ``shuffle`` draws each row once an epoch, ``replacement`` as DRAEM's code does (methods 1.2).
        memory_gb: the images of a split go to a temporary file if they take more, decoded.
    """

    root: str
    category: str
    image_size: int | Sequence[int]
    center_crop: int | None
    crop: Literal["auto"] | Sequence[float] | None
    fit: Literal["stretch", "pad"]
    register: bool = field()  # field: else ABCMeta.register would be its default
    masks: Annotated[Literal["auto", "required"], EVALUATION_ONLY]
    holdout: float
    augment: Augmentation | None
    synthesis: Synthesizer
    sampling: Literal["shuffle", "replacement"]
    batch_size: int
    workers: int
    memory_gb: float
    seed: int

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"data.holdout: {self.holdout} is not a share; give a number in [0, 1)")
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(f"data.batch_size={self.batch_size}, data.workers={self.workers}: give at least 1 and 0")
        sides = [self.image_size] * 2 if isinstance(self.image_size, int) else self.image_size
        if len(sides) != 2 or min(sides) < 1:
            raise ConfigError(f"data.image_size: {self.image_size}; give one side or [height, width], at least 1")
        self._splits: dict[str, list[ImageRecord]] = {}
        self._fingerprint = ""
        self.crop_box: Sequence[float] | None = None
        self.reference: np.ndarray | None = None  # (h, w, 3) uint8, the photograph that others are registered to

    @abstractmethod
    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the files of a split in a fixed order; ``validation`` holds normals only and may be empty."""

    def splits(self) -> dict[str, list[ImageRecord]]:
        """Return the records as they are used: ``train``, ``normal`` (kept for the threshold) and ``test``."""
        if not self._splits:
            train, normal, test = (self.records(split) for split in ("train", "validation", "test"))
            if not normal and self.holdout:
                order = np.random.default_rng((HOLDOUT, self.seed)).permutation(len(train))
                kept = set(order[: round(self.holdout * len(train))].tolist())
                normal = [record for row, record in enumerate(train) if row in kept]
                train = [record for row, record in enumerate(train) if row not in kept]
            if not train or not test:
                kind = "test" if train else "training"
                raise DataError(f"{self.root}: category {self.category} has no {kind} images")
            self._splits = {"train": train, "normal": normal, "test": test}
        return self._splits

    def unmasked(self) -> int:
        """Count the anomalous test images without ground truth."""
        missing = [record.image for record in self.splits()["test"] if record.label and record.mask is None]
        if missing and self.masks == "required":
            raise DataError(f"{missing[0]}: has no mask ({len(missing)} such images); add it or set data.masks=auto")
        return len(missing)

    def fingerprint(self) -> str:
        """Return a hash over the contents and the role of every file, computed once."""
        if self._fingerprint:
            return self._fingerprint
        files = [(role, r.label, path) for role, rs in self.splits().items() for r in rs for path in r[:2] if path]
        pairs = zip(files, content_hashes([path for *_, path in files]), strict=True)
        lines = (f"{role} {label} {path.name} {digest}" for (role, label, path), digest in pairs)
        self._fingerprint = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self._fingerprint

    def described(self) -> dict[str, Any]:
        """Return what a manifest says of the data, as plain types; after `setup`."""
        counts = {role: len(records) for role, records in self.splits().items()}
        counts |= {"anomalous": sum(r.label for r in self.splits()["test"]), "unmasked": self.unmasked()}
        crop = None if self.crop_box is None else list(self.crop_box)
        return {"counts": counts, "crop_box": crop, "added_pseudo_images": self.order().added}

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Decode everything once, so that a bad file ends the run before its first step."""
        if "train" not in self.__dict__:
            self.unmasked(), self.order()  # each ends the run if it does not fit
            key = (self.fingerprint(), self.geometry(), self.register, self.memory_gb)
            if key not in LAST:
                LAST.clear()
                if self.register:
                    self.reference = read_image(self.splits()["train"][0].image)
                LAST[key] = (self.reference, [self._decode(role) for role in self.splits()])
            self.reference, decoded = LAST[key]
            pairs = zip(decoded, self.splits().values(), strict=True)
            self.train, self.normal, self.test = (split._replace(records=records) for split, records in pairs)
            self.synthesis.setup(list(self.train.images))

    def geometry(self) -> Geometry:
        """Return how a photograph becomes the network's image; ``crop=auto`` looks at the training images once."""
        if self.crop_box is None and self.crop is not None:
            self.crop_box = self.crop if self.crop != "auto" else self._part_box()
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        crop = None if self.crop_box is None else tuple(self.crop_box)
        return Geometry((height, width), self.fit, self.center_crop, crop)

    def _part_box(self) -> Sequence[float]:
        from anomaly_lab.data.part_box import part_box  # noqa: PLC0415 - few data sets need it

        return part_box([record.image for record in self.splits()["train"]], register=self.register)

    def _decode(self, role: str) -> Split:
        what = (self.splits()[role], self.geometry(), self.memory_gb)
        if self.reference is None:
            return decode(*what)
        from anomaly_lab.data.registration import decode_registered  # noqa: PLC0415 - few data sets need it

        return decode_registered(*what, self.reference)

    def order(self) -> AddressedSampler:
        """Return which images an epoch draws; ConfigError: the ratio of pseudo images is positive, but gives none."""
        size = len(self.splits()["train"]) * (1 + (self.augment.copies if self.augment else 0))
        return AddressedSampler(size, self.seed, self.sampling, self.synthesis.ratio)

    def train_dataloader(self) -> DataLoader[TrainBatch]:
        """Return the training batches of one epoch; the order and the content depend on (seed, epoch) alone."""
        dataset, sampler = TrainDataset(self.train.images, self.augment, self.synthesis, self.seed), self.order()
        if self.trainer is not None:  # after a resume workers read ahead before Lightning sets the sampler's epoch
            sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        return DataLoader(dataset, self.batch_size, sampler=sampler, **self._loading())

    def normal_batches(self) -> Iterator[Tensor]:
        """Yield the training images as they are, in the order of the records: (B, 3, H, W) float32 in [0, 1]."""
        for start in range(0, len(self.train.images), self.batch_size):
            few = self.train.images[start : start + self.batch_size]
            yield torch.stack([as_tensor(image) for image in few]).float() / 255

    def test_dataloader(self) -> list[DataLoader[EvalBatch]]:
        """Return first some normals (the kept ones, else a few of training), then the test set."""
        normal = self.normal if self.normal.records else Split._make(rows[:16] for rows in self.train)
        sets = (EvalDataset(split, self.batch_size) for split in (normal, self.test))
        return [DataLoader(batches, None, **self._loading()) for batches in sets]

    def _loading(self) -> dict[str, Any]:
        # Without a generator of its own a loader draws from torch's: each epoch, but only once if workers persist.
        own = torch.Generator()
        fast = {"persistent_workers": self.workers > 0, "pin_memory": torch.cuda.is_available()}
        return {"num_workers": self.workers, "generator": own, **fast}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Make [0, 1] float32 of the uint8 images, on the device: a quarter of the bytes travel."""
        return batch._replace(**{k: v.float().div_(255) for k, v in batch._asdict().items() if k in ("image", "clean")})
