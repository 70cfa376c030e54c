"""Textures made by formula, where no folder of photographs is at hand.

A pattern is a relief, (H, W) float32 in [0, 1], and the number, (H, W) int64, of each pixel's stripe, tile or
cell. Colour, light and grain are laid over it. Lengths are shares of the shorter side: another size is
another detail.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from anomaly_lab.synthesis.noise import perlin

Pattern = tuple[np.ndarray, np.ndarray]
SHARED = 2**26  # bytes of textures that a process keeps
Family = Callable[[tuple[int, int], np.random.Generator], Pattern]


def make_textures(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Return (count, H, W, 3) uint8 RGB, read-only: the jobs of a sweep, who all want the same, share them.

    Those of over `SHARED` bytes are made anew, so that a process does not keep them when they are not used.
    The families take turns, and a third of the textures mixes in a second one.
    """
    make = _made if 3 * count * size[0] * size[1] <= SHARED else _made.__wrapped__
    return make(count, size, seed)


@lru_cache(maxsize=1)
def _made(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    textures = np.empty((count, *size, 3), np.uint8)
    for index in range(count):
        texture = _coloured(FAMILIES[index % len(FAMILIES)], size, rng)
        if rng.random() < 1 / 3:
            second, shape = (FAMILIES[i] for i in rng.integers(len(FAMILIES), size=2))
            share = _step(shape(size, rng)[0], rng.uniform(0.4, 0.6), rng.uniform(0.01, 0.3))[..., None]
            texture += share * (_coloured(second, size, rng) - texture)
        texture += rng.normal(0, rng.uniform(0, 0.05), (*size, 1))
        textures[index] = np.rint(255 * np.clip(texture, 0, 1))
    textures.setflags(write=False)
    return textures


def _coloured(family: Family, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a pattern, (H, W, 3) float32 in about [0, 1].

    It is coloured by relief and by number, and lit from one side.
    """
    relief, number = family(size, rng)
    palette = _palette(int(rng.integers(2, 6)), rng)
    stops = np.concatenate([[0.0], np.sort(rng.random(len(palette) - 2)), [1.0]])
    ramp = np.stack([np.interp(np.linspace(0, 1, 256), stops, channel) for channel in palette.T], 1).astype(
        np.float32
    )
    colour = ramp[np.rint(255 * relief).astype(np.uint8)]
    colour += rng.uniform(0, 1) ** 2 * (_palette(64, rng)[number % 64] - colour)
    height = cv2.GaussianBlur(relief, (0, 0), min(size) / rng.uniform(150, 500))
    from_left, from_top = rng.uniform(-0.06, 0.06, 2) * min(size) / 8
    slope = from_left * cv2.Sobel(height, cv2.CV_32F, 1, 0) + from_top * cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return np.asarray(colour * (1 + np.clip(slope, -0.6, 0.6))[..., None], np.float32)


def _palette(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return (count, 3) float32 colours, from all alike to all different and from grey to gaudy."""
    colours = rng.random(3) + rng.uniform(0.1, 0.8) * rng.uniform(-1, 1, (count, 3))
    grey = colours.mean(1, keepdims=True)
    colours = grey + rng.uniform(0, 1) ** 1.5 * (colours - grey) + rng.uniform(-0.25, 0.25)
    return np.asarray(np.clip(colours, 0, 1), np.float32)


def _stretched(field: np.ndarray) -> np.ndarray:
    low, high = np.quantile(field[::4, ::4], (0.005, 0.995))
    return np.asarray(np.clip((field - low) / max(high - low, 1e-6), 0, 1), np.float32)


def _step(field: np.ndarray, at: float, width: float) -> np.ndarray:
    """Return a smooth step from 0 to 1 over ``width`` about ``at``."""
    t = np.clip((field - at) / width + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _scale(rng: np.random.Generator, low: float = 3, high: float = 24) -> float:
    """Return how many periods lie on the shorter side, log-uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _fractal(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return octaves of Perlin noise, (H, W) float32 in about [-1, 1].

    The finest cells are about two pixels wide.
    """
    rows, columns = (int(n) for n in rng.integers(2, 7, 2))
    octaves = int(max(1, np.log2(min(size) / max(rows, columns))))
    keep = rng.uniform(0.35, 0.7)
    field = np.zeros(size, np.float32)
    for octave in range(octaves):
        field += keep**octave * perlin(size, (rows << octave, columns << octave), rng)
    return field


def _plane(size: tuple[int, int], rng: np.random.Generator, periods: float) -> tuple[np.ndarray, np.ndarray]:
    """Return turned and, half the time, warped coordinates (H, W) float32, one unit a period."""
    angle = rng.uniform(0, np.pi)
    unit = periods / min(size)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) * np.float32(unit)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    if rng.random() < 0.5:
        warp = rng.uniform(0.1, 1.2)
        cells = (int(rng.integers(2, 6)), int(rng.integers(2, 6)))
        u, v = u + warp * perlin(size, cells, rng), v + warp * perlin(size, cells, rng)
    return u.astype(np.float32), v.astype(np.float32)


def _flat(relief: np.ndarray) -> Pattern:
    return relief.astype(np.float32), np.zeros(relief.shape, np.int64)


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    return _flat(_stretched(_fractal(size, rng)))


def _veins(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    return _flat(_stretched(1 - np.abs(_fractal(size, rng))) ** rng.uniform(1, 6))


def _marble(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    u, _ = _plane(size, rng, _scale(rng, 1, 8))
    return _flat(0.5 + 0.5 * np.sin(2 * np.pi * (u + rng.uniform(0.3, 2) * _fractal(size, rng))))


def _rings(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) / min(size)
    stretch = rng.uniform(1, 6)
    centre = rng.uniform(-0.3, 1.3, 2)
    radius = np.hypot(y - centre[0], (x - centre[1]) * stretch) * _scale(rng, 3, 16)
    radius += rng.uniform(0, 1) * _fractal(size, rng)
    return (radius % 1).astype(np.float32), np.floor(radius).astype(np.int64)


def _stripes(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    u, _ = _plane(size, rng, _scale(rng))
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * u)
    return _step(wave, rng.uniform(0.3, 0.7), rng.uniform(0.1, 1)), np.floor(u + 0.25).astype(np.int64)


def _weave(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    u, v = _plane(size, rng, _scale(rng, 6, 32))
    float_over = int(rng.integers(1, 4))
    warp_on_top = (np.floor(u) + np.floor(v)) % (float_over + 1) < float_over
    warp = np.abs(np.sin(np.pi * u))
    weft = np.abs(np.sin(np.pi * v))
    relief = np.where(warp_on_top, warp * (0.6 + 0.4 * weft), weft * (0.6 + 0.4 * warp))
    return relief.astype(np.float32), np.where(warp_on_top, np.floor(u), np.floor(v) + 1000).astype(np.int64)


def _bricks(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    u, v = _plane(size, rng, _scale(rng, 3, 16))
    row = np.floor(v)
    u = u / rng.uniform(0.7, 3) + rng.choice([0, 0.5, rng.random()]) * row
    edge = np.minimum(0.5 - np.abs(u % 1 - 0.5), 0.5 - np.abs(v % 1 - 0.5))
    relief = _step(edge, rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.3))
    return relief * (0.8 + 0.2 * _stretched(_fractal(size, rng))), (row * 37 + np.floor(u)).astype(np.int64)


def _nearest(
    u: np.ndarray, v: np.ndarray, jitter: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distances to the two nearest points of a jittered unit grid, and the nearest's number."""
    points = (0.5 + jitter * rng.uniform(-0.5, 0.5, (2, 4096))).astype(np.float32)
    column = np.floor(u)
    row = np.floor(v)
    first = np.full(u.shape, np.inf, np.float32)
    second = np.full(u.shape, np.inf, np.float32)
    number = np.zeros(u.shape, np.int64)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            here = ((row + down) * 73 + (column + right) * 31).astype(np.int64) % 4096
            distance = np.hypot(u - (column + right) - points[0][here], v - (row + down) - points[1][here])
            second = np.minimum(second, np.maximum(first, distance))
            number = np.where(distance < first, here, number)
            first = np.minimum(first, distance)
    return first, second, number


def _cells(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    near, second, number = _nearest(*_plane(size, rng, _scale(rng)), rng.uniform(0.5, 1), rng)
    relief = (
        _step(second - near, 0.1, rng.uniform(0.05, 0.4)),
        1 - np.clip(near, 0, 1),
        np.clip(second - near, 0, 1),
    )
    return relief[rng.integers(3)], number


def _dots(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    near, _, number = _nearest(*_plane(size, rng, _scale(rng)), rng.uniform(0, 0.8), rng)
    radius = rng.uniform(0.15, 0.3) + rng.uniform(0, 0.2) * (number * 0.6180339 % 1).astype(np.float32)
    dome = np.sqrt(np.clip(1 - (near / radius) ** 2, 0, 1))
    relief = dome if rng.random() < 0.5 else _step(dome, 0.2, 0.3)
    return relief.astype(np.float32), np.where(near < radius, number, 0)


def _grain(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    side = 2 * max(size)
    white = rng.standard_normal((side, side), np.float32)
    sigma = min(size) / _scale(rng, 30, 400)
    streak = cv2.GaussianBlur(white, (0, 0), sigmaX=sigma * _scale(rng, 1, 30), sigmaY=sigma)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), 1.0)
    turn[:, 2] -= np.array([(side - size[1]) / 2, (side - size[0]) / 2])
    return _flat(_stretched(cv2.warpAffine(streak, turn, size[::-1])))


def _labyrinth(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    sigma = min(size) / _scale(rng, 20, 90)
    white = rng.standard_normal(size, np.float32)
    band = cv2.GaussianBlur(white, (0, 0), sigma) - cv2.GaussianBlur(white, (0, 0), 1.6 * sigma)
    return _flat(_step(band / band.std(), rng.uniform(-0.7, 0.7), rng.uniform(0.2, 2)))


def _fibres(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    relief = np.zeros(size, np.float32)
    count = int(_scale(rng, 60, 600))
    thick = max(1, round(min(size) / _scale(rng, 40, 300)))
    heading = rng.uniform(0, np.pi) + rng.uniform(0, 1.6) * rng.standard_normal(count)
    bend = rng.uniform(0, 1.5)
    steps = np.cumsum(np.concatenate([heading[:, None], bend * rng.standard_normal((count, 12)) / 3], 1), 1)
    path = np.cumsum(np.stack([np.cos(steps), np.sin(steps)], -1) * min(size) * rng.uniform(0.01, 0.08), 1)
    path += rng.uniform(-0.2, 1.2, (count, 1, 2)) * size[::-1]
    for line, level in zip(np.rint(path).astype(np.int32), rng.uniform(0.2, 1, count), strict=True):
        cv2.polylines(
            relief, [line], isClosed=False, color=float(level), thickness=thick, lineType=cv2.LINE_AA
        )
    return _flat(relief)


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> Pattern:
    u, v = _plane(size, rng, rng.uniform(0.5, 2))
    return _flat(_stretched(u if rng.random() < 0.5 else np.hypot(u - rng.random(), v - rng.random())))


FAMILIES: tuple[Family, ...] = (
    *(_clouds, _veins, _marble, _rings, _stripes, _weave, _bricks),
    *(_cells, _dots, _grain, _labyrinth, _fibres, _gradient),
)
