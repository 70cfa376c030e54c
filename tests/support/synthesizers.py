"""Synthesizers as conf has them, and images for them."""

from pathlib import Path

import cv2
import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from anomaly_lab.synthesis.cutpaste import CutPaste
from anomaly_lab.synthesis.nsa import Nsa
from anomaly_lab.synthesis.perlin_texture import PerlinTexture
from tests.support.runs import CONF

BIG = {"half_height": [0.15, 0.4], "half_width": [0.15, 0.4]}  # below 9 pixels a side there is no patch


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cutpaste(**changes: object) -> CutPaste:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "synthesis/cutpaste.yaml"))
    del values["_target_"]
    return CutPaste(**{**values, "probability": 1.0, **changes})


def natural(normals: np.ndarray | None = None, **changes: object) -> Nsa:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "synthesis/nsa.yaml"))
    del values["_target_"]
    synthesizer = Nsa(**{**values, **changes})
    if normals is not None:
        synthesizer.setup(list(normals))
    return synthesizer


def noise(size: tuple[int, int], count: int = 1) -> np.ndarray:
    images = rng(7).integers(0, 256, (count, *size, 3)).astype(np.uint8)
    images.flags.writeable = False
    return images


def smooth(size: tuple[int, int], count: int = 1) -> np.ndarray:
    images = [
        cv2.resize(rng(k).integers(60, 190, (5, 6, 3)).astype(np.uint8), size[::-1]) for k in range(count)
    ]
    return np.stack(images)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height, width of what is True."""
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def photographs(count: int = 4, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Smooth colourful images, (N, H, W, 3) uint8, read-only as a memory map's may be."""
    noise = [cv2.resize(rng(i).integers(0, 256, (6, 8, 3), np.uint8), size[::-1]) for i in range(count)]
    images = np.stack(noise)
    images.flags.writeable = False
    return images


def perlin_texture(**changes: object) -> PerlinTexture:
    """DRAEM's recipe with a few procedural textures, set up for `photographs`."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "synthesis/perlin_texture.yaml"))
    values.pop("_target_")
    values["resize"] = "antialias"  # there it follows data.resize
    synthesizer = PerlinTexture(**{**values, "textures": "procedural", "num_procedural": 13, **changes})
    synthesizer.setup(photographs())
    return synthesizer


def write_textures(folder: Path, *colours: tuple[int, int, int]) -> str:
    for number, colour in enumerate(colours):
        file = folder / f"class_{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(file)
    return str(folder)


def perlin_by_loops(shape, lattice, generator):
    angle = generator.uniform(0, 2 * np.pi, (lattice[0] + 1, lattice[1] + 1))
    noise = np.zeros(shape)
    for py in range(shape[0]):
        for px in range(shape[1]):
            y, x = py * lattice[0] / shape[0], px * lattice[1] / shape[1]
            for cy in (int(y), int(y) + 1):
                for cx in (int(x), int(x) + 1):
                    ramp = np.sin(angle[cy, cx]) * (y - cy) + np.cos(angle[cy, cx]) * (x - cx)
                    near = 1 - abs(y - cy), 1 - abs(x - cx)
                    fade = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in near]
                    noise[py, px] += np.sqrt(2) * fade[0] * fade[1] * ramp
    return noise
