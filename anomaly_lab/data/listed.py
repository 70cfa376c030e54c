"""The files of a data set: it lists records; how they are used is the same for all."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, get_args, get_type_hints

from anomaly_lab.data import listing, splits
from anomaly_lab.data.left_out import LeftOut, left_out, watched
from anomaly_lab.data.names import check_category
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.types import EVALUATION_ONLY, SAME_RUN, ImageRecord


@dataclass(kw_only=True, eq=False, repr=False)
class Listed(ABC):
    """A category of a data set, as files on the disk.

    Attributes:
        root: the folder of the data set.
        category: a plain name.
        masks: ``required`` makes an anomalous test image without a mask an error; ``auto`` drops the pixel
            metrics.
        holdout: share of the training normals kept for a threshold, unless the data set has a validation
            folder.
        train_anomalies: so many labelled anomalies, for supervised methods, leave the test set; ``all`` are
            those that a data set publishes for training.
        seed: draws what is held out and what is learned from.
        left_out: what is no image of the data set, known once `roles` are.
    """

    root: Annotated[str, SAME_RUN]
    category: str
    masks: Annotated[Literal["auto", "required"], EVALUATION_ONLY]
    holdout: float
    train_anomalies: int | Literal["all"]
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"data.holdout: {self.holdout} is not a share; give a number in [0, 1)")
        check_category(self.category)
        self.left_out = LeftOut("", [])

    @classmethod
    def categories(cls, root: str) -> list[str]:
        """Return the categories on the disk. DataError: there is none."""
        return listing.categories(root, get_args(get_type_hints(cls)["category"]))

    @abstractmethod
    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the files of a split in a fixed order; ``validation`` holds normals only and may be empty."""

    def published_anomalies(self) -> list[ImageRecord]:
        """List the labelled anomalies that are published for training; most data sets have none."""
        return []

    @cached_property
    def roles(self) -> dict[str, list[ImageRecord]]:
        """The records as they are used.

        ``train``, ``normal`` (kept for the threshold), ``test`` and ``anomalies`` (labelled, to learn from).
        """
        with watched() as folders:
            try:
                train, normal, test = (self.records(split) for split in ("train", "validation", "test"))
            finally:  # an image that is left out may be why the others do not fit
                self.left_out = left_out(folders)
        if not normal:
            train, normal = splits.held_out(train, self.holdout, self.seed)
        if missing := splits.missing(train, normal, test, self.holdout):
            besides = f"; left out: {self.left_out.text}" if self.left_out.text else ""
            raise DataError(f"{self.root}: category {self.category} has no {missing}{besides}")
        anomalies: list[ImageRecord] = []
        if self.train_anomalies:
            published = self.published_anomalies()
            anomalies, test = splits.labelled(published, test, self.train_anomalies, self.seed)
        return {"train": train, "normal": normal, "test": test, "anomalies": anomalies}

    @cached_property
    def files(self) -> list[str]:
        """The role, label, name and content's hash of every file, a line each."""
        return splits.file_lines(self.roles)

    @cached_property
    def fingerprint(self) -> str:
        """A hash over the contents and the role of every file, 16 hex digits."""
        return splits.fingerprint(self.files)

    def unmasked(self) -> int:
        """Count the anomalous test images without ground truth.

        Raises:
            DataError: masks are required and one is missing.
        """
        missing = splits.without_mask(self.roles["test"])
        if missing and self.masks == "required":
            raise DataError(
                f"{missing[0]}: has no mask ({len(missing)} such images); add it or set data.masks=auto"
            )
        return len(missing)
