"""DRAEM's pseudo anomalies: an augmented texture, blended in where Perlin noise is high."""

from collections.abc import Sequence
from typing import Annotated, final

import cv2
import numpy as np

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.augmenters import AUGMENTERS, AugmenterName
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import rotated
from anomaly_lab.synthesis.noise import perlin
from anomaly_lab.synthesis.procedural import make_textures
from anomaly_lab.synthesis.textures import TextureFolder
from anomaly_lab.types import SAME_RUN


@final
class PerlinTexture(Synthesizer):
    """Zavrtanik et al., ICCV 2021, section 3.3, and the authors' code (docs/methods/draem.md, notes 2 to 6).

    The yaml explains each argument. The mask is the paper's, noise above the threshold: pixels in it may
    happen to be unchanged, and it may be empty.
    """

    def __init__(  # noqa: PLR0913 - hyperparameters
        self,
        *,
        probability: float,
        lattice_exponents: Sequence[int],
        rotate_degrees: float,
        threshold: float | Sequence[float],
        texture_weight: Sequence[float],
        augmenters: Sequence[AugmenterName],
        num_augmenters: int,
        textures: str | None,
        textures_gb: Annotated[float, SAME_RUN],
        num_procedural: int,
    ) -> None:
        self.probability = probability
        self.lattice_exponents = lattice_exponents
        self.rotate_degrees = rotate_degrees
        self.threshold = threshold if isinstance(threshold, Sequence) else (threshold, threshold)
        self.texture_weight = texture_weight
        self.num_procedural = num_procedural
        self.augmenters = augmenters
        self.num_augmenters = num_augmenters
        if not 0 <= probability <= 1:
            raise ConfigError(f"synthesis.probability: {probability} is not a share; give a number in [0, 1]")
        if not 0 <= num_augmenters <= len(augmenters):
            raise ConfigError(
                f"synthesis.num_augmenters: {num_augmenters} of a list of {len(augmenters)}; take 0 to that"
            )
        ranges = {
            "lattice_exponents": lattice_exponents,
            "threshold": self.threshold,
            "texture_weight": texture_weight,
        }
        for name, ends in ranges.items():
            if len(ends) != 2 or ends[0] > ends[1] or (ends[0] < 0 and name != "threshold"):
                raise ConfigError(f"synthesis.{name}: {list(ends)} is not a range; give [low, high]")
        if num_procedural < 1:
            raise ConfigError(f"synthesis.num_procedural: {num_procedural}; give at least 1")
        self.folder = None if textures is None else TextureFolder(textures, textures_gb)
        self.source = "procedural" if self.folder is None else f"folder {textures}, {self.folder.described}"

    def setup(self, normals: Sequence[np.ndarray]) -> None:
        """Decode or make the textures, at the size of the training images."""
        height, width = normals[0].shape[:2]
        self.textures: TextureFolder | np.ndarray
        if self.folder is None:
            self.textures = make_textures(self.num_procedural, (height, width), seed=0)
        else:
            self.textures = self.folder.load((height, width))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W, 3) uint8 image, itself if it stays clean, and its (H, W) bool mask."""
        mask = self._mask(image, rng) if rng.random() < self.probability else np.zeros(image.shape[:2], bool)
        if not mask.any():
            return image, mask
        weight = rng.uniform(self.texture_weight[0], self.texture_weight[1])
        blend = cv2.addWeighted(self._texture(rng), weight, image, 1 - weight, 0.0)
        return cv2.copyTo(blend, mask.view(np.uint8), image.copy()), mask

    def _mask(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, columns = 2 ** rng.integers(self.lattice_exponents[0], self.lattice_exponents[1] + 1, 2)
        noise = perlin((image.shape[0], image.shape[1]), (int(rows), int(columns)), rng)
        noise = rotated(noise, rng.uniform(-self.rotate_degrees, self.rotate_degrees))
        return np.asarray(noise > rng.uniform(self.threshold[0], self.threshold[1]))

    def _texture(self, rng: np.random.Generator) -> np.ndarray:
        texture = self.textures[int(rng.integers(len(self.textures)))]
        for index in rng.permutation(len(self.augmenters))[: self.num_augmenters]:
            texture = AUGMENTERS[self.augmenters[index]](texture, rng)
        return texture
