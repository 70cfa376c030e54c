"""The demo's three parts, flawless and with the defects that change their build: fabric, hex nut, packaged chip."""

import math
from functools import reduce
from typing import NamedTuple, final

import cv2
import numpy as np

from anomaly_lab.data.demo_canvas import (
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
from anomaly_lab.data.demo_defects import blob


class Pose(NamedTuple):
    """A part's own coordinates (N, N) in pixels, and the angle by which it is turned."""

    u: Array
    v: Array
    turn: float


def posed(rng: np.random.Generator, angle: float, shift: float, stretch: float) -> Pose:
    """A random pose."""
    turn, size = rng.uniform(-angle, angle), 1 + rng.uniform(-stretch, stretch)
    dx, dy = X - rng.uniform(-shift, shift), Y - rng.uniform(-shift, shift)
    cos, sin = math.cos(turn) / size, math.sin(turn) / size
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
    bright, warm = 1 + rng.uniform(-spread, spread), rng.uniform(-0.02, 0.02)
    return colour[0] * bright * (1 + warm), colour[1] * bright, colour[2] * bright * (1 - warm)


def weave(rng: np.random.Generator) -> Scene:
    """A 2/2 twill of twisted yarns."""
    pose, light, pitch = posed(rng, 0.08, 30, 0.06), lamp(rng), rng.uniform(10.5, 12.5)
    a, b = ((x + 1.2 * field(rng, 5)) * (1 / pitch) + 40 for x in (pose.u, pose.v))
    shades = rng.normal(1, 0.05, (2, 96)).astype(np.float32)
    colours = dyed(rng, (0.64, 0.61, 0.54), 0.12), dyed(rng, (0.51, 0.52, 0.53), 0.12)
    fuzz, patches, twist, depth = grain(rng, 0.5), field(rng, 8), rng.uniform(1.8, 2.6), rng.uniform(0.2, 0.42)

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
        lit = 1 + 0.10 * np.clip(relief(blur(height * (pitch / 3), 0.4), light), -2, 2) + 0.05 * fuzz + 0.03 * patches
        yarns = np.where(warp > weft, tinted(warp_tone, colours[0]), tinted(weft_tone, colours[1]))
        return yarns * (np.clip(0.92 - depth + depth * height, 0.12, 1.1) * lit)

    def missing_yarn(rng: np.random.Generator) -> Drawing:
        """A weft yarn is broken off over some length, and the warp sinks into the gap."""
        thread, start, length = rng.integers(34, 46), rng.uniform(33, 41), rng.uniform(5, 8)
        ends = np.minimum(a - start, start + length - a) * pitch + field(rng, 48)
        strip = (np.floor(b) == int(thread)) * ramp(ends)
        return Drawing(draw(warp - 0.3 * strip, np.where(strip > 0, -0.9, weft)) * (1 - 0.2 * strip), strip)

    return Scene(draw(warp, weft), np.ones_like(X), light, {"missing_yarn": missing_yarn})


def nut(rng: np.random.Generator) -> Scene:
    """A turned hex nut on a matte table."""
    (u, v, turn), light = posed(rng, 0.35, 9, 0.04), lamp(rng)
    r, to_lamp = np.sqrt(u * u + v * v), math.atan2(light[1], light[0]) - turn
    cos, sin = u / r, v / r
    flats = (80 - np.abs(u * math.cos(t) + v * math.sin(t)) for t in (0, math.tau / 6, math.tau / 3))
    outline = reduce(np.minimum, flats, 89.5 - r)
    rings = rng.normal(0, 1, 300).astype(np.float32)[(r * 1.4).astype(np.int32)]
    fuzz, patches, wear = grain(rng, 0.5), field(rng, 6), field(rng, 6)
    steel, table = dyed(rng, (0.70, 0.70, 0.68), 0.10), dyed(rng, (0.23, 0.25, 0.28), 0.30)
    thread = np.where((r < 42) & (r > 33), 0.9 * (np.sin(2 * r) * cos + np.cos(2 * r) * sin), 0)
    height = thread - 0.55 * np.clip(r - 77, 0, None) - 0.9 * np.clip(47 - r, 0, 5)
    glance = 2 * np.square(cos * math.cos(to_lamp) + sin * math.sin(to_lamp)) - 1
    face = ((r > 47) & (r < 77)) * (0.22 * glance * np.abs(glance) + 0.04 * rings)
    tone = 0.80 + face + 0.34 * np.clip(relief(blur(height, 0.5), light), -0.9, 0.9)
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


PINS, PITCH, REACH = 6, 29.0, 36.0  # leads a side, their spacing and their length
WIDE, HIGH = 90.0, 46.0  # half sizes of the case


@final
class Chip:
    """A gull-wing package soldered to a green board."""

    def __init__(self, rng: np.random.Generator) -> None:
        pose, self.light = posed(rng, 0.07, 9, 0.04), lamp(rng)
        self.u, self.v = pose.u, pose.v
        self.inside = np.minimum(WIDE - np.abs(self.u), HIGH - np.abs(self.v))
        self.along = np.abs(self.v) - HIGH
        self.number = np.clip(np.rint(self.u / PITCH + (PINS - 1) / 2), 0, PINS - 1)
        self.case = case(pose, self.inside, rng, self.light)
        self.fuzz, self.metal = grain(rng, 0.5), dyed(rng, (0.76, 0.76, 0.74), 0.08)
        across = self.u - (self.number - (PINS - 1) / 2) * PITCH
        self.pad = ramp(np.minimum(9.5 - np.abs(across), np.minimum(self.along - 14, 43 - self.along)))
        self.ground = self.board(across, rng)
        self.leads, self.cover = self.lead(across)

    def board(self, across: Array, rng: np.random.Generator) -> Array:
        """Tracks, tinned pads, and the shadow of the case."""
        track = 0.35 * soft(3.2 - np.abs(across), 1) * ramp(self.along - 30)
        mask = tinted(1 + 0.04 * self.fuzz + 0.04 * field(rng, 7) + track, dyed(rng, (0.10, 0.34, 0.22), 0.2))
        return mix(mask, tinted(1 + 0.04 * self.fuzz, (0.52, 0.53, 0.50)), self.pad) * (
            1 - 0.5 * blur(shifted(ramp(self.inside), self.light, 3), 2.5)
        )

    def lead(self, across: Array) -> tuple[Array, Array]:
        """Image and coverage of leads whose axes are ``across`` away."""
        edge = 6.2 + 1.5 * soft(7 - self.along, 2) - np.abs(across)
        bends = 0.30 * bell(self.along - 15, 4) + 0.15 * bell(self.along - 35, 2)
        gloss = 0.12 * bell(across + 2 * self.light[0], 2.4) - 0.25 * soft(1.2 - edge, 1.5)
        outline = np.minimum(np.minimum(edge, REACH - self.along), self.along + 2)
        return tinted(0.95 - bends + gloss + 0.03 * self.fuzz, self.metal), ramp(outline)

    def draw(self, ground: Array, cover: Array) -> Array:
        """The whole picture, with this much of the leads."""
        return mix(mix(ground, self.leads, cover), self.case, ramp(self.inside))

    def torn(self, gone: Array) -> Array:
        """The picture where ``gone`` is 1: lead and solder are torn off the copper."""
        copper = tinted(1 + 0.08 * self.fuzz, (0.66, 0.40, 0.24))
        return self.draw(mix(self.ground, copper, 0.9 * self.pad * gone), self.cover * (1 - gone))

    def missing_pin(self, rng: np.random.Generator) -> Drawing:
        """A lead is gone and its pad bare."""
        gone = (self.number == int(rng.integers(PINS))) * self.half(rng)
        return Drawing(self.torn(gone), gone * np.maximum(self.cover, self.pad) * ramp(-self.inside))

    def bent_pin(self, rng: np.random.Generator) -> Drawing:
        """A lead is pushed aside, off its pad."""
        which, half = int(rng.integers(PINS)), self.half(rng)
        gone = (self.number == which) * half
        swing = int(rng.choice([-1, 1])) * rng.uniform(10, 14) * np.square(np.clip(self.along / REACH, 0, 1))
        bent, there = self.lead(self.u - (which - (PINS - 1) / 2) * PITCH - swing)
        image = mix(mix(self.torn(gone), bent, there * half), self.case, ramp(self.inside))
        return Drawing(image, np.maximum(gone * np.maximum(self.cover, self.pad), there * half) * ramp(-self.inside))

    def bridge(self, rng: np.random.Generator) -> Drawing:
        """Solder joins two neighbouring leads."""
        x, y = (int(rng.integers(PINS - 1)) - PINS / 2 + 1) * PITCH, HIGH + rng.uniform(23, 31)
        inside = blob(rng, (self.u - x) * 0.7, self.v - int(rng.choice([-1, 1])) * y, rng.uniform(8.5, 10.5), 0.15)
        dome = 4 * np.sqrt(np.clip(inside / 10, 0.01, 1))
        slope, shape = np.clip(relief(blur(dome, 0.7), self.light), -0.8, 0.8), soft(inside, 1.5)
        tone = 0.84 + 0.35 * slope + 0.3 * bell(slope - 0.45, 0.15) + 0.02 * self.fuzz
        return Drawing(mix(self.draw(self.ground, self.cover), tinted(tone, self.metal), shape), shape)

    def half(self, rng: np.random.Generator) -> Array:
        """One of the two rows of leads."""
        return (self.v * int(rng.choice([-1, 1])) > 0).astype(np.float32)


def case(pose: Pose, inside: Array, rng: np.random.Generator, light: tuple[float, float]) -> Array:
    """The chip's moulded case with its dimple and laser marking."""
    dimple = relief(-2.5 * soft(7 - np.sqrt((pose.u + 72) ** 2 + (pose.v - 28) ** 2), 3), light)
    bevel = 0.9 * np.clip(relief(3.5 * soft(inside - 4, 8), light), -0.6, 0.6)
    tone = (1 + 0.07 * grain(rng, 0.55) + 0.06 * field(rng, 7) + bevel) * (1 + 0.6 * dimple)
    body = tinted(tone, dyed(rng, (0.23, 0.23, 0.24), 0.3))
    return body * (1 + rng.uniform(0.5, 0.8) * marking(pose, int(rng.integers(1000, 10000))))


def marking(pose: Pose, lot: int) -> Array:
    """Coverage of the laser marking."""
    canvas = np.zeros((N, N), np.uint8)
    for text, size, row in (("GT 4066B", 1.0, 245), (f"LOT {lot}", 0.8, 292)):
        cv2.putText(canvas, text, (160, row), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 3, cv2.LINE_AA)
    column, line = ((x + SIDE / 2) * ZOOM - 0.5 for x in (pose.u, pose.v))
    return cv2.remap(canvas, column, line, cv2.INTER_LINEAR).astype(np.float32) / 255


def chip(rng: np.random.Generator) -> Scene:
    """A chip, its case the surface."""
    c = Chip(rng)
    own = {"missing_pin": c.missing_pin, "bent_pin": c.bent_pin, "solder_bridge": c.bridge}
    return Scene(c.draw(c.ground, c.cover), ramp(c.inside - 4), c.light, own)
