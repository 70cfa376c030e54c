"""A test set without real defects: held-out normal images, each also with a synthesised defect."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import cv2
import numpy as np

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.images import Geometry, read_image, resize_image
from anomaly_lab.data.tree import folder, mvtec_tree
from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import ImageRecord


@final
@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticDefects(AnomalyDataModule):
    """A category in MVTec AD's layout, of which only the normal training images are used.

    Attributes:
        test_share: of the training images is kept for testing, those with the smallest hashes of their names.
        written: where the test images go, WRITTEN/CATEGORY, as PNG files of ``written_size`` squared.
        defects: spoils each of them, with a generator addressed by its name.
    """

    test_share: float
    written: str
    written_size: int
    defects: Synthesizer

    def records(self, split: Literal["train", "validation", "test"]) -> list[ImageRecord]:
        """List the normals that are not kept, or write and list the kept ones, good and spoiled."""
        if not 0 < self.test_share < 1:
            raise ConfigError(f"data.test_share: {self.test_share} is no share in (0, 1)")
        normals = mvtec_tree(folder(self.root, self.category), "train")
        if split == "validation":
            return mvtec_tree(folder(self.root, self.category), "validation")
        ranked = sorted(normals, key=lambda record: _digest(record.image))
        kept = ranked[: max(1, round(self.test_share * len(normals)))]
        if split == "train":
            return [record for record in normals if record not in kept]
        return self._written([record.image for record in kept])

    def _written(self, files: list[Path]) -> list[ImageRecord]:
        size = (self.written_size, self.written_size)
        geometry = Geometry(size, "stretch", None, None)
        self.defects.setup([np.zeros((*size, 3), np.uint8)])
        records = []
        for file in files:
            image = read_image(file)
            good = resize_image(image, geometry.place((image.shape[0], image.shape[1])), size)
            spoiled, mask = self.defects(good, np.random.default_rng(int.from_bytes(_digest(file)[:8])))
            path = Path(self.written, self.category)
            records.append(
                ImageRecord(_write(path / "good" / f"{file.stem}.png", good), None, label=False, defect="good")
            )
            if mask.any():
                target = _write(
                    path / "mask" / f"{file.stem}.png", np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
                )
                spoiled_file = _write(path / "synthetic" / f"{file.stem}.png", spoiled)
                records.append(ImageRecord(spoiled_file, target, label=True, defect="synthetic"))
        return sorted(records, key=lambda record: (record.label, record.image))


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.name.encode()).digest()


def _write(path: Path, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB picture whole or not at all; two runs that write the same do not clash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{np.random.SeedSequence().entropy}.part")
    temporary.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    return temporary.replace(path)
