"""DRAEM's pseudo anomalies: an augmented texture, blended in where Perlin noise is high."""

from collections.abc import Sequence
from typing import Annotated, Literal, final

import cv2
import numpy as np

from anomaly_lab.errors import ConfigError
from anomaly_lab.synthesis.augmenters import AUGMENTERS, AugmenterName
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.geometry import Resize, random_window, rotated
from anomaly_lab.synthesis.noise import perlin
from anomaly_lab.synthesis.procedural import make_textures
from anomaly_lab.synthesis.textures import PlainColours, TextureFolder
from anomaly_lab.types import SAME_RUN

MADE = {"procedural": "procedural", "plain": "plain colours"}  # textures that are no folder, and their source


@final
class PerlinTexture(Synthesizer):
    """Zavrtanik et al., ICCV 2021, section 3.3, and the authors' code (docs/methods/draem.md, notes 2 to 6).

    The yaml explains each argument. The mask is the paper's, noise above the threshold: pixels in it may
    happen to be unchanged, and it may be empty. Rectangles and plain colours are rows of the paper's Table 3
    (note 15).
    """

    def __init__(  # noqa: PLR0913 - hyperparameters
        self,
        *,
        probability: float,
        lattice_exponents: Sequence[int],
        rotate_degrees: float,
        threshold: float | Sequence[float],
        shape: Literal["noise", "rectangles"],
        rectangles: Sequence[int],
        rectangle_sides: Sequence[float],
        texture_weight: Sequence[float],
        augmenters: Sequence[AugmenterName],
        num_augmenters: int,
        textures: str | None,
        textures_gb: Annotated[float, SAME_RUN],
        resize: Resize,
        num_procedural: int,
    ) -> None:
        self.probability = probability
        self.lattice_exponents = lattice_exponents
        self.rotate_degrees = rotate_degrees
        self.threshold = threshold if isinstance(threshold, Sequence) else (threshold, threshold)
        self.shape = shape
        self.rectangles = rectangles
        self.rectangle_sides = rectangle_sides
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
            "rectangles": rectangles,
            "rectangle_sides": rectangle_sides,
            "texture_weight": texture_weight,
        }
        for name, ends in ranges.items():
            if len(ends) != 2 or ends[0] > ends[1] or (ends[0] < 0 and name != "threshold"):
                raise ConfigError(f"synthesis.{name}: {list(ends)} is not a range; give [low, high]")
        if rectangles[0] < 1 or not 0 < rectangle_sides[0] <= rectangle_sides[1] <= 1:
            given = f"rectangles={list(rectangles)}, synthesis.rectangle_sides={list(rectangle_sides)}"
            raise ConfigError(f"synthesis.{given}: give at least 1, with sides above 0 and at most 1")
        if num_procedural < 1:
            raise ConfigError(f"synthesis.num_procedural: {num_procedural}; give at least 1")
        if textures is None:
            ways = "FOLDER of photographs (the papers': images/ of DTD), or textures=procedural: by formula"
            raise ConfigError(f"synthesis.textures: none given; give textures={ways}")
        self.folder = None if textures in MADE else TextureFolder(textures, textures_gb, resize)
        self.source = MADE[textures] if self.folder is None else f"folder {textures}, {self.folder.described}"

    def setup(self, normals: Sequence[np.ndarray]) -> None:
        """Decode or make the textures, at the size of the training images."""
        height, width = normals[0].shape[:2]
        self.textures: TextureFolder | PlainColours | np.ndarray
        if self.folder is not None:
            self.textures = self.folder.load((height, width))
        elif self.source == "procedural":
            self.textures = make_textures(self.num_procedural, (height, width), seed=0)
        else:
            self.textures = PlainColours((height, width))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W, 3) uint8 image, itself if it stays clean, and its (H, W) bool mask."""
        mask = self._mask(image, rng) if rng.random() < self.probability else np.zeros(image.shape[:2], bool)
        if not mask.any():
            return image, mask
        weight = rng.uniform(self.texture_weight[0], self.texture_weight[1])
        blend = cv2.addWeighted(self._texture(rng), weight, image, 1 - weight, 0.0)
        return cv2.copyTo(blend, mask.view(np.uint8), image.copy()), mask

    def _mask(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.shape == "rectangles":
            return self._rectangles((image.shape[0], image.shape[1]), rng)
        rows, columns = 2 ** rng.integers(self.lattice_exponents[0], self.lattice_exponents[1] + 1, 2)
        noise = perlin((image.shape[0], image.shape[1]), (int(rows), int(columns)), rng)
        noise = rotated(noise, rng.uniform(-self.rotate_degrees, self.rotate_degrees))
        return np.asarray(noise > rng.uniform(self.threshold[0], self.threshold[1]))

    def _rectangles(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Return the union of some upright rectangles, wholly inside, each at least a pixel."""
        mask = np.zeros(size, bool)
        for _ in range(rng.integers(self.rectangles[0], self.rectangles[1] + 1)):
            shares = rng.uniform(self.rectangle_sides[0], self.rectangle_sides[1], 2)
            sides = [max(1, round(share * side)) for share, side in zip(shares, size, strict=True)]
            mask[random_window(sides, size, rng)] = True
        return mask

    def _texture(self, rng: np.random.Generator) -> np.ndarray:
        texture = self.textures[int(rng.integers(len(self.textures)))]
        for index in rng.permutation(len(self.augmenters))[: self.num_augmenters]:
            texture = AUGMENTERS[self.augmenters[index]](texture, rng)
        return texture
