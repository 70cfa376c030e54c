"""A test set without real defects: held-out normal images, each also with a synthesised defect."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, final

import cv2
import numpy as np

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.images import Reading, read_image
from anomaly_lab.data.listing import folder, mvtec_tree
from anomaly_lab.data.names import shortened
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import resized
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticDefects(AnomalyDataModule):
    """A category in MVTec AD's layout, of which only the normal training images are used.

    Photographs of any depth are written as a run on them sees them, in 8 bits of 0 to ``data.white``, all by
    the white of those that are not kept. So an image and its spoiled copy differ by the defect alone.

    Attributes:
        test_share: of the training images is kept for testing, those with the smallest hashes of their names.
        written: where all images go, WRITTEN/CATEGORY, PNG files of ``written_size`` squared, named by
            content.
        defects: spoils each image that is kept, with a generator addressed by its name.
    """

    real_labels: ClassVar[bool] = False
    test_share: float
    written: str
    written_size: int
    defects: Synthesizer

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """Write and list the normals that are not kept, or the kept ones, good and spoiled."""
        if not 0 < self.test_share < 1 or self.written_size < 1:
            raise ConfigError(
                f"data.test_share={self.test_share}, written_size={self.written_size}: give a share, a side"
            )
        category = folder(self.root, self.category)
        if split == "validation":
            return [self._good(record.image) for record in mvtec_tree(category, "validation")]
        kept, rest = self._shares()
        if split == "train":
            return [self._good(file) for file in sorted(rest)]
        self.defects.setup([self._resized(file) for file in kept[:1]])
        return [self._good(file) for file in kept] + [r for file in kept for r in self._spoiled(file)]

    @cached_property
    def source(self) -> Reading:
        """How the photographs are read that the images are written from."""
        self.sources = self._shares()[1]
        return self.reading_of(self.sources)

    def _shares(self) -> tuple[list[Path], list[Path]]:
        """Return the normal images that are kept for testing, and the rest."""
        listed = mvtec_tree(folder(self.root, self.category), "train")
        files = sorted((record.image for record in listed), key=_digest)
        count = max(1, round(self.test_share * len(files)))
        return files[:count], files[count:]

    def _resized(self, file: Path) -> np.ndarray:
        image = read_image(file, self.source)
        return resized(image, (self.written_size, self.written_size), self.resize)

    def _good(self, file: Path) -> ImageRecord:
        return ImageRecord(self._write("good", file, self._resized(file)), None, label=False, defect="good")

    def _spoiled(self, file: Path) -> list[ImageRecord]:
        rng = np.random.default_rng(int.from_bytes(_digest(file)[:8]))
        image, mask = self.defects(self._resized(file), rng)
        if not mask.any():
            return []
        written = self._write("synthetic", file, image)
        white = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
        return [ImageRecord(written, self._write("mask", file, white), label=True, defect="synthetic")]

    def _write(self, kind: str, file: Path, image: np.ndarray) -> Path:
        """Write an (H, W, 3) uint8 RGB picture whole or not at all; another content has another name."""
        content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        name = f"{shortened(file.stem, 80)}-{hashlib.sha256(content).hexdigest()[:8]}.png"
        path = Path(self.written, self.category, kind, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(content)
                Path(part).replace(path)
            finally:
                Path(part).unlink(missing_ok=True)
        return path


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.name.encode("utf-8", "surrogateescape")).digest()
