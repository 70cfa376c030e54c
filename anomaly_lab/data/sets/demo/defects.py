"""Defects drawn on a part's surface: strokes and blobs with relief.

Nothing here is shared with ``synthesis``.
"""

import math

import cv2
import numpy as np

from anomaly_lab.data.sets.demo.canvas import (
    SIDE,
    ZOOM,
    Array,
    Colour,
    Drawing,
    N,
    Scene,
    X,
    Y,
    bell,
    blur,
    field,
    grain,
    mix,
    ramp,
    relief,
    soft,
    tinted,
)


def spot(scene: Scene, rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """A point of the surface, at least ``margin`` from its border if there is one."""
    solid = cv2.copyMakeBorder((scene.surface > 0.99).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5)[1:-1, 1:-1]
    places = np.flatnonzero(depth >= min(margin * ZOOM, float(depth.max())))
    place = places[rng.integers(len(places))]
    return float(X.flat[place]), float(Y.flat[place])


def blob(rng: np.random.Generator, dx: Array, dy: Array, radius: float, rough: float = 0.25) -> Array:
    """Distance inside an irregular closed outline around the origin of (dx, dy)."""
    angle = np.arctan2(dy, dx)
    edge = np.zeros_like(dx)
    for k in range(2, 9):
        edge += rng.normal(0, rough / k**1.4) * np.cos(k * angle + rng.uniform(0, math.tau))
    inside: Array = radius * np.exp(edge) - np.sqrt(dx * dx + dy * dy)
    return inside


def trail(
    rng: np.random.Generator, start: tuple[float, float], length: float, wander: float, jag: float
) -> Array:
    """Points (K, 2) two pixels apart.

    The heading drifts by ``wander`` a step and each point strays by ``jag``.
    """
    steps = round(length / 2)
    heading = rng.uniform(0, math.tau) + np.cumsum(rng.normal(0, wander, steps))
    line = 2 * np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) + rng.normal(
        0, jag, (steps, 2)
    )
    return np.asarray(line + start, np.float32)


def best_trail(scene: Scene, rng: np.random.Generator, length: float, wander: float, jag: float) -> Array:
    """Of 24 random trails the one that lies most on the surface."""

    def covered(line: Array) -> int:
        column, row = np.rint((line + SIDE / 2) * ZOOM).astype(int).T
        within = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < N)
        return int((scene.surface[row[within], column[within]] > 0.5).sum())

    return max((trail(rng, spot(scene, rng, 5), length, wander, jag) for _ in range(24)), key=covered)


def distance(line: Array) -> Array:
    """Distance to a polyline of points (K, 2)."""
    canvas = np.full((N, N), 255, np.uint8)
    points = np.rint(((line + SIDE / 2) * ZOOM - 0.5) * 16).astype(np.int32)
    cv2.polylines(canvas, [points], isClosed=False, color=0, shift=4)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / ZOOM


def scratch(scene: Scene, rng: np.random.Generator) -> Drawing:
    """A shallow groove: bare bright bottom, one lip lit, the other in shade."""
    away = distance(best_trail(scene, rng, rng.uniform(55, 90), 0.03, 0))
    width = rng.uniform(1.1, 1.6)
    shape = ramp(width + 0.8 - away) * scene.surface
    groove = relief(-1.3 * width * bell(away, width), scene.light)
    bare = rng.uniform(0.7, 0.95) * soft(width - away, 1.2) * (1 + 0.2 * grain(rng, 0.5)) * scene.surface
    return Drawing(mix(scene.image, 0.95, bare) + 0.5 * groove * shape, shape)


def crack(
    scene: Scene, rng: np.random.Generator, width: tuple[float, float], jag: float, fork: float
) -> Drawing:
    """A dark opening with a side branch of about length ``fork``; the lip that faces the lamp shines."""
    line = best_trail(scene, rng, rng.uniform(45, 75), 0.12, jag)
    x, y = line[len(line) // 2].tolist()
    away = np.minimum(
        distance(line), distance(trail(rng, (x, y), fork * rng.uniform(0.7, 1.3), 0.12, jag)) + 0.3
    )
    half = rng.uniform(*width) * np.clip(1 + 0.25 * field(rng, 24), 0.65, 1.6)
    shape = ramp(half + 1.0 - away) * scene.surface
    lip = 0.4 * bell(away - half, 1) + np.clip(relief(-bell(away, 1.6), scene.light), 0, None)
    depth = 0.95 * soft(half - away, 1.0) * scene.surface
    return Drawing(mix(scene.image + 0.65 * lip * shape, 0.02 + 0.1 * scene.image, depth), shape)


def stain(scene: Scene, rng: np.random.Generator, absorb: Colour, radius: tuple[float, float]) -> Drawing:
    """A dried liquid with droplets around it; it takes ``absorb`` of each channel, most at its rim."""
    size = rng.uniform(*radius)
    x, y = spot(scene, rng, 0.8 * size)
    inside = blob(rng, X - x, Y - y, size)
    for _ in range(int(rng.integers(0, 3))):
        angle = rng.uniform(0, math.tau)
        far = size * rng.uniform(1.2, 1.5)
        dx = X - (x + far * math.cos(angle))
        dy = Y - (y + far * math.sin(angle))
        inside = np.maximum(inside, blob(rng, dx, dy, size * rng.uniform(0.15, 0.25)))
    shape = soft(inside, 2.5) * scene.surface
    strength = shape * (0.75 + 0.3 * bell(inside - 2, 2) + 0.08 * field(rng, 40))
    return Drawing(scene.image * (1 - tinted(strength, absorb)), shape)


def deposit(scene: Scene, rng: np.random.Generator, colour: Colour, radius: tuple[float, float]) -> Drawing:
    """Crumbly matter of one ``colour`` that lies on the surface."""
    size = rng.uniform(*radius)
    x, y = spot(scene, rng, 0.8 * size)
    crumbs = grain(rng, 0.9)
    shape = soft(blob(rng, X - x, Y - y, size, 0.4) + 0.8 * crumbs, 1.5) * scene.surface
    body = (
        1 + 0.20 * crumbs + 0.4 * np.clip(relief(blur(shape * (2 + 0.5 * crumbs), 0.5), scene.light), -1, 1)
    )
    return Drawing(
        mix(scene.image, tinted(body, colour), shape * np.clip(0.8 + 0.15 * field(rng, 32), 0.5, 1)), shape
    )


def dent(scene: Scene, rng: np.random.Generator) -> Drawing:
    """An impact mark: a pit with a raised edge."""
    size = rng.uniform(7, 11)
    x, y = spot(scene, rng, 0.7 * size)
    inside = blob(rng, X - x, Y - y, size, 0.2)
    shape = soft(inside + 1.5, 1.5) * scene.surface
    pit = relief(0.8 * bell(inside, 1.5) - 3.5 * soft(inside - size / 3, 0.9 * size), scene.light)
    return Drawing(mix(scene.image, np.clip(scene.image * (1 + 1.4 * pit), 0.04, 1.1), shape), shape)


def hole(scene: Scene, rng: np.random.Generator) -> Drawing:
    """A puncture with a worn rim."""
    x, y = spot(scene, rng, 12)
    inside = blob(rng, X - x, Y - y, rng.uniform(6, 9), 0.35) + 0.7 * grain(rng, 0.8)
    shape = soft(inside + 2.2, 1.5) * scene.surface
    rim = mix(scene.image, scene.image * (1.05 + 0.6 * relief(2.5 * soft(-inside, 3), scene.light)), shape)
    return Drawing(mix(rim, 0.02 + 0.12 * scene.image, soft(inside, 1.6) * scene.surface), shape)


def fibre(scene: Scene, rng: np.random.Generator, colours: tuple[Colour, ...]) -> Drawing:
    """A loose foreign thread on top, with the shadow that it casts."""
    line = best_trail(scene, rng, rng.uniform(50, 90), 0.16, 0)
    away = distance(line)
    thick = rng.uniform(1.4, 1.9)
    shade = 0.45 * soft(thick - distance(line - 2 * np.array(scene.light, np.float32)), 3)
    body = soft(thick - away, 0.9) * scene.surface
    tone = (
        0.85
        + 0.3 * relief(np.sqrt(np.clip(thick**2 - away**2, 0, None)), scene.light)
        + 0.1 * grain(rng, 0.6)
    )
    shape = np.maximum(body, soft(shade - 0.08, 0.04)) * scene.surface
    yarn = tinted(np.clip(tone, 0.2, 1.4), colours[int(rng.integers(len(colours)))])
    return Drawing(mix(scene.image * (1 - shade * shape), yarn, body), shape)
