"""A folder of texture photographs, decoded once."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, final

import cv2
import numpy as np

from anomaly_lab.errors import DataError


@final
class TextureFolder:
    """All .jpg and .png files below a folder, sorted; by index, (H, W, 3) uint8 RGB of the size loaded."""

    def __init__(self, folder: str, memory_gb: float) -> None:
        self.files = sorted(
            p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        self.memory_gb = memory_gb
        if not self.files:
            state = "holds no .jpg or .png" if Path(folder).is_dir() else "is not a folder"
            raise DataError(
                f"synthesis.textures: {folder} {state}; name another, or null for procedural textures"
            )

    @property
    def described(self) -> str:
        """Count of the images, and a digest of their names and sizes.

        Other files are other pseudo anomalies.
        """
        names = "".join(f"{file.name} {file.stat().st_size}\n" for file in self.files)
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{len(self.files)} images, digest {digest[:8]}"

    def load(self, size: tuple[int, int]) -> Self:
        """Decode what the memory holds, for forked workers to share; the rest is decoded at each use."""
        self.size = size
        kept = self.files[: int(self.memory_gb * 2**30 / (3 * size[0] * size[1]))]
        self.decoded = np.empty((len(kept), *size, 3), np.uint8)
        with ThreadPoolExecutor() as pool:
            for index, texture in enumerate(pool.map(self._decode, kept)):
                self.decoded[index] = texture
        return self

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.decoded[index] if index < len(self.decoded) else self._decode(self.files[index])

    def _decode(self, file: Path) -> np.ndarray:
        image = cv2.imread(str(file))
        if image is None:
            raise DataError(f"{file}: cannot be read as a texture; remove or replace it")
        return cv2.cvtColor(cv2.resize(image, self.size[::-1]), cv2.COLOR_BGR2RGB)
