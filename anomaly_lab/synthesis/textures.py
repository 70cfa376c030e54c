"""What a defect shows: a folder of texture photographs, decoded once, or one plain colour each."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, final

import cv2
import numpy as np
from PIL import Image, ImageOps

from anomaly_lab.errors import DataError
from anomaly_lab.synthesis.geometry import Resize, resized


@final
class TextureFolder:
    """All .jpg and .png files below a folder, sorted; by index, (H, W, 3) uint8 RGB of the size loaded.

    Hidden files and those in hidden folders are none of them. ``resize`` is how they come to that size.
    """

    def __init__(self, folder: str, memory_gb: float, resize: Resize) -> None:
        self.files = sorted(
            p
            for p in Path(folder).rglob("*")
            if p.suffix.lower() in (".jpg", ".jpeg", ".png")
            and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        )
        self.memory_gb = memory_gb
        self.resize: Resize = resize
        if not self.files:
            state = "holds no .jpg or .png" if Path(folder).is_dir() else "is not a folder"
            raise DataError(
                f"synthesis.textures: {folder} {state}; name another, or procedural for ones made by formula"
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
        """Decode every file, so that a bad one ends a run before it begins.

        What the memory holds is kept, for forked workers to share; the rest is decoded again at each use.
        """
        self.size = size
        kept = min(len(self.files), int(self.memory_gb * 2**30 / (3 * size[0] * size[1])))
        self.decoded = np.empty((kept, *size, 3), np.uint8)

        def keep(index: int) -> None:
            texture = self._decode(self.files[index])
            if index < kept:
                self.decoded[index] = texture

        with ThreadPoolExecutor() as pool:
            list(pool.map(keep, range(len(self.files))))
        return self

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.decoded[index] if index < len(self.decoded) else self._decode(self.files[index])

    def _decode(self, file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                image.load()  # refuses a file that is cut off, of which OpenCV returns what there is
                if image.mode in ("L", "RGB"):
                    values = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
                else:
                    values = cv2.cvtColor(np.asarray(cv2.imread(str(file))), cv2.COLOR_BGR2RGB)
        except Exception as error:  # PIL's plugins raise much besides OSError
            reason = " ".join(str(error).split())
            raise DataError(
                f"{file}: cannot be read as a texture ({reason}); remove or replace it"
            ) from error
        return resized(values, self.size, self.resize)


@final
class PlainColours:
    """Every colour of 8 bits, by its number, as an (H, W, 3) uint8 image of it alone."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __len__(self) -> int:
        return 2**24

    def __getitem__(self, index: int) -> np.ndarray:
        colour = [index >> 16, index >> 8 & 255, index & 255]
        return np.full((*self.size, 3), colour, np.uint8)
