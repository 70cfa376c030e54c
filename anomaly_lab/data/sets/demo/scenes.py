"""The demo's fabric and hex nut, flawless and with the defects that change their build."""

import math
from functools import reduce
from typing import NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.sets.demo.canvas import (
    ZOOM,
    Array,
    Colour,
    Drawing,
    N,
    Scene,
    X,
    Y,
    blur,
    field,
    grain,
    mix,
    ramp,
    relief,
    soft,
    tinted,
)


class Pose(NamedTuple):
    """A part's own coordinates (N, N) in pixels, and the angle by which it is turned."""

    u: Array
    v: Array
    turn: float


def posed(rng: np.random.Generator, angle: float, shift: float, stretch: float) -> Pose:
    """A random pose."""
    turn = rng.uniform(-angle, angle)
    size = 1 + rng.uniform(-stretch, stretch)
    dx = X - rng.uniform(-shift, shift)
    dy = Y - rng.uniform(-shift, shift)
    cos = math.cos(turn) / size
    sin = math.sin(turn) / size
    return Pose(dx * cos + dy * sin, dy * cos - dx * sin, turn)


def lamp(rng: np.random.Generator) -> tuple[float, float]:
    """The direction of the light: from the upper left, as the lamp is mounted, give or take 30 degrees."""
    angle = rng.uniform(-2.9, -1.8)
    return math.cos(angle), math.sin(angle)


def shifted(plane: Array, light: tuple[float, float], height: float) -> Array:
    """Where a plane's outline casts its shadow."""
    move = np.array([[1, 0, -height * ZOOM * light[0]], [0, 1, -height * ZOOM * light[1]]])
    return cv2.warpAffine(plane, move, (N, N))


def dyed(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """A material's colour as it varies from part to part: mostly in brightness, a little in warmth."""
    bright = 1 + rng.uniform(-spread, spread)
    warm = rng.uniform(-0.02, 0.02)
    return colour[0] * bright * (1 + warm), colour[1] * bright, colour[2] * bright * (1 - warm)


def weave(rng: np.random.Generator) -> Scene:
    """A 2/2 twill of twisted yarns."""
    pose = posed(rng, 0.08, 30, 0.06)
    light = lamp(rng)
    pitch = rng.uniform(10.5, 12.5)
    a, b = ((x + 1.2 * field(rng, 5)) * (1 / pitch) + 40 for x in (pose.u, pose.v))
    shades = rng.normal(1, 0.05, (2, 96)).astype(np.float32)
    colours = dyed(rng, (0.64, 0.61, 0.54), 0.12), dyed(rng, (0.51, 0.52, 0.53), 0.12)
    fuzz = grain(rng, 0.5)
    patches = field(rng, 8)
    twist = rng.uniform(1.8, 2.6)
    depth = rng.uniform(0.2, 0.42)

    def yarn(across: Array, along: Array, phase: Array, shade: Array) -> tuple[Array, Array]:
        thread = np.floor(across)
        c = 2 * (across - thread) - 1
        ply = np.sin(math.tau * (along * twist + 0.55 * c))
        height = 0.5 * np.sin(phase) + 0.9 * np.sqrt(np.clip(1 - 1.12 * c * c, 0, None)) + 0.03 * ply
        return np.where(np.abs(c) < 0.94, height, -0.9), shade[thread.astype(np.int32)] * (1 + 0.07 * ply)

    warp, warp_tone = yarn(a, b, math.tau / 4 * (b - np.floor(a)), shades[0])
    weft, weft_tone = yarn(b, a, math.tau / 4 * (np.floor(b) + 3 - a), shades[1])

    def draw(warp: Array, weft: Array) -> Array:
        height = np.maximum(warp, weft)
        lit = (
            1
            + 0.10 * np.clip(relief(blur(height * (pitch / 3), 0.4), light), -2, 2)
            + 0.05 * fuzz
            + 0.03 * patches
        )
        yarns = np.where(warp > weft, tinted(warp_tone, colours[0]), tinted(weft_tone, colours[1]))
        return yarns * (np.clip(0.92 - depth + depth * height, 0.12, 1.1) * lit)

    def missing_yarn(rng: np.random.Generator) -> Drawing:
        """A weft yarn is broken off over some length, and the warp sinks into the gap."""
        thread = rng.integers(34, 46)
        start = rng.uniform(33, 41)
        length = rng.uniform(5, 8)
        ends = np.minimum(a - start, start + length - a) * pitch + field(rng, 48)
        strip = (np.floor(b) == int(thread)) * ramp(ends)
        return Drawing(draw(warp - 0.3 * strip, np.where(strip > 0, -0.9, weft)) * (1 - 0.2 * strip), strip)

    return Scene(draw(warp, weft), np.ones_like(X), light, {"missing_yarn": missing_yarn})


def nut(rng: np.random.Generator) -> Scene:
    """A turned hex nut on a matte table."""
    pose = posed(rng, 0.35, 9, 0.04)
    light = lamp(rng)
    u, v, _ = pose
    r = np.sqrt(u * u + v * v)
    flats = (80 - np.abs(u * math.cos(t) + v * math.sin(t)) for t in (0, math.tau / 6, math.tau / 3))
    outline = reduce(np.minimum, flats, 89.5 - r)
    rings = rng.normal(0, 1, 300).astype(np.float32)[(r * 1.4).astype(np.int32)]
    fuzz = grain(rng, 0.5)
    patches = field(rng, 6)
    wear = field(rng, 6)
    steel = dyed(rng, (0.70, 0.70, 0.68), 0.10)
    table = dyed(rng, (0.23, 0.25, 0.28), 0.30)
    tone = turned(pose, r, rings, light)
    tone = tone * (1 + 0.025 * fuzz + 0.03 * wear) * (1 - 0.55 * soft(42 - r, 3))
    ground = tinted(1 + 0.05 * fuzz + 0.03 * patches, table)

    def draw(outline: Array) -> Array:
        cast = 0.55 * blur(shifted(ramp(outline), light, 4), 4)
        edge = 0.5 * np.clip(relief(-soft(-outline, 3), light), -0.5, 0.5)
        floor = ground * (1 - np.maximum(cast, 0.7 * soft(36 - r, 6)))
        return mix(floor, tinted(tone + edge, steel), ramp(np.minimum(outline, r - 34)))

    def notch(rng: np.random.Generator) -> Drawing:
        """A corner is broken off."""
        corner = math.tau / 12 + math.tau / 6 * int(rng.integers(6))
        gap = u * math.cos(corner) + v * math.sin(corner) - (89.5 - rng.uniform(9, 14)) + 0.9 * field(rng, 20)
        fracture = soft(6 - np.abs(gap + 6), 2) * ramp(outline) * ramp(-gap)
        rough = tinted(np.clip(0.36 + 0.17 * grain(rng, 1.5), 0.08, 1.2), steel)
        image = mix(draw(np.minimum(outline, -gap)), rough, 0.95 * fracture)
        moved = soft(np.abs(image - draw(outline)).max(axis=0) - 0.025, 0.01)
        return Drawing(image, np.maximum(np.maximum(ramp(gap) * ramp(outline), fracture), moved))

    return Scene(draw(outline), ramp(np.minimum(outline - 3, r - 50)), light, {"notch": notch})


def turned(pose: Pose, r: Array, rings: Array, light: tuple[float, float]) -> Array:
    """How bright the lamp makes a nut's turned face, its chamfers and its thread; ``r`` is to the axis."""
    cos = pose.u / r
    sin = pose.v / r
    to_lamp = math.atan2(light[1], light[0]) - pose.turn
    thread = np.where((r < 42) & (r > 33), 0.9 * (np.sin(2 * r) * cos + np.cos(2 * r) * sin), 0)
    height = thread - 0.55 * np.clip(r - 77, 0, None) - 0.9 * np.clip(47 - r, 0, 5)
    glance = 2 * np.square(cos * math.cos(to_lamp) + sin * math.sin(to_lamp)) - 1
    face = ((r > 47) & (r < 77)) * (0.22 * glance * np.abs(glance) + 0.04 * rings)
    tone: Array = 0.80 + face + 0.34 * np.clip(relief(blur(height, 0.5), light), -0.9, 0.9)
    return tone
