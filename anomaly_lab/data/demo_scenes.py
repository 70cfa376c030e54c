"""The demo's three parts, flawless and with the defects that change their build: a fabric, a hex nut, a packaged chip."""

import math
from typing import NamedTuple

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
    """A random direction of the light."""
    angle = rng.uniform(0, math.tau)
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
        ends = np.minimum(a - start, start + length - a) * pitch
        strip = (np.floor(b) == int(thread)) * ramp(ends)
        return Drawing(draw(warp - 0.3 * strip, np.where(strip > 0, -0.9, weft)) * (1 - 0.3 * strip), strip)

    return Scene(draw(warp, weft), np.ones_like(X), light, {"missing_yarn": missing_yarn})


def nut(rng: np.random.Generator) -> Scene:
    """A turned hex nut on a matte table."""
    (u, v, turn), light = posed(rng, math.pi, 9, 0.05), lamp(rng)
    r, angle = np.sqrt(u * u + v * v), np.arctan2(v, u)
    flats = np.max([np.abs(u * math.cos(t) + v * math.sin(t)) for t in (0, math.tau / 6, math.tau / 3)], axis=0)
    outline = np.minimum(80 - flats, 89.5 - r)
    rings = rng.normal(0, 1, 300).astype(np.float32)[(r * 1.4).astype(np.int32)]
    fuzz, patches, wear = grain(rng, 0.5), field(rng, 6), field(rng, 6)
    steel, table = dyed(rng, (0.70, 0.70, 0.68), 0.10), dyed(rng, (0.23, 0.25, 0.28), 0.30)
    thread = np.where((r < 42) & (r > 33), 0.9 * np.sin(math.tau / 3.2 * (r - 34) + angle), 0)
    height = thread - 0.55 * np.clip(r - 77, 0, None) - 0.9 * np.clip(47 - r, 0, 5)
    glance = np.cos(2 * (angle + (turn - math.atan2(light[1], light[0]))))
    face = ((r > 47) & (r < 77)) * (0.22 * glance * np.abs(glance) + 0.05 * rings)
    tone = 0.80 + face + 0.55 * np.clip(relief(blur(height, 0.5), light), -0.9, 0.9)
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
        fracture = soft(5 - np.abs(gap + 4), 2) * ramp(outline) * ramp(-gap)
        image = mix(
            draw(np.minimum(outline, -gap)), tinted(0.5 + 0.14 * field(rng, 64) + 0.05 * fuzz, steel), 0.85 * fracture
        )
        moved = soft(np.abs(image - draw(outline)).max(axis=0) - 0.025, 0.01)
        return Drawing(image, np.maximum(np.maximum(ramp(gap) * ramp(outline), fracture), moved))

    return Scene(draw(outline), ramp(np.minimum(outline - 3, r - 50)), light, {"notch": notch})


PINS, PITCH, REACH, WIDE, HIGH = (
    8,
    21.0,
    34.0,
    88.0,
    44.0,
)  # of the chip: pins a side, their spacing and length; half sizes


def marking(pose: Pose, lot: int) -> Array:
    """Coverage (N, N) of the laser marking."""
    canvas = np.zeros((N, N), np.uint8)
    for text, size, row in (("GT 4066B", 1.0, 245), (f"LOT {lot}", 0.8, 292)):
        cv2.putText(canvas, text, (160, row), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 3, cv2.LINE_AA)
    column, line = ((x + SIDE / 2) * ZOOM - 0.5 for x in (pose.u, pose.v))
    return cv2.remap(canvas, column, line, cv2.INTER_LINEAR).astype(np.float32) / 255


def body(pose: Pose, rng: np.random.Generator, light: tuple[float, float]) -> Array:
    """The chip's moulded case."""
    inside = np.minimum(WIDE - np.abs(pose.u), HIGH - np.abs(pose.v))
    dimple = 7 - np.sqrt((pose.u + 72) ** 2 + (pose.v - 28) ** 2)
    bevel = 0.9 * np.clip(relief(3.5 * soft(inside - 4, 8), light), -0.6, 0.6)
    tone = (1 + 0.10 * grain(rng, 0.55) + 0.06 * field(rng, 7) + bevel) * (
        1 + 0.6 * relief(-2.5 * soft(dimple, 3), light)
    )
    return mix(
        tinted(tone, dyed(rng, (0.23, 0.23, 0.24), 0.3)),
        rng.uniform(0.45, 0.6),
        0.8 * marking(pose, int(rng.integers(1000, 9999))),
    )


def chip(rng: np.random.Generator) -> Scene:
    """A gull-wing package soldered to a green board."""
    pose, light = posed(rng, 0.07, 9, 0.04), lamp(rng)
    u, v = pose.u, pose.v
    case, inside = body(pose, rng, light), np.minimum(WIDE - np.abs(u), HIGH - np.abs(v))
    fuzz, patches = grain(rng, 0.5), field(rng, 7)
    board, metal = dyed(rng, (0.10, 0.34, 0.22), 0.2), dyed(rng, (0.76, 0.76, 0.74), 0.08)
    along, number = np.abs(v) - HIGH, np.clip(np.rint(u / PITCH + (PINS - 1) / 2), 0, PINS - 1)
    across = u - (number - (PINS - 1) / 2) * PITCH
    pad = np.minimum(7 - np.abs(across), np.minimum(along - 16, 41 - along))
    track = 0.35 * soft(2.6 - np.abs(across), 1) * ramp(along - 30)
    ground = mix(
        tinted(1 + 0.04 * fuzz + 0.04 * patches + track, board),
        tinted(1 + 0.05 * fuzz - 0.15 * soft(2 - pad, 2), (0.68, 0.60, 0.40)),
        ramp(pad),
    )
    ground = ground * (1 - 0.5 * blur(shifted(ramp(inside), light, 3), 2.5))

    def lead(across: Array) -> tuple[Array, Array]:
        """Image and coverage of the leads at these distances from their axes."""
        edge = 4.6 + 1.2 * soft(6 - along, 2) - np.abs(across)
        bends = 0.30 * bell(along - 15, 4) + 0.15 * bell(along - 33, 2)
        tone = 0.95 - bends + 0.12 * bell(across + 1.5 * light[0], 1.8) + 0.03 * fuzz - 0.25 * soft(1.2 - edge, 1.5)
        return tinted(tone, metal), ramp(np.minimum(np.minimum(edge, REACH - along), along + 2))

    leads, cover = lead(across)

    def draw(present: Array | float) -> Array:
        return mix(mix(ground, leads, cover * present), case, ramp(inside))

    def missing_pin(rng: np.random.Generator) -> Drawing:
        """A lead is gone; its pad is bare."""
        gone = ((number == int(rng.integers(PINS))) & (v * int(rng.choice([-1, 1])) > 0)).astype(np.float32)
        return Drawing(draw(1 - gone), gone * cover * ramp(-inside))

    def bent_pin(rng: np.random.Generator) -> Drawing:
        """A lead is pushed aside, off its pad."""
        which, half = int(rng.integers(PINS)), (v * int(rng.choice([-1, 1])) > 0).astype(np.float32)
        gone = (number == which) * half
        swing = int(rng.choice([-1, 1])) * rng.uniform(8, 11)
        bent, there = lead(u - (which - (PINS - 1) / 2) * PITCH - swing * np.square(np.clip(along / REACH, 0, 1)))
        image = mix(mix(draw(1 - gone), bent, there * half), case, ramp(inside))
        return Drawing(image, np.maximum(gone * cover, there * half) * ramp(-inside))

    def bridge(rng: np.random.Generator) -> Drawing:
        """Solder joins two neighbouring leads."""
        x, y = (
            (int(rng.integers(PINS - 1)) - PINS / 2 + 1) * PITCH,
            int(rng.choice([-1, 1])) * (HIGH + rng.uniform(22, 29)),
        )
        blot = blob(rng, (u - x) * 0.7, v - y, rng.uniform(7, 9), 0.15)
        shape = soft(blot, 1.5)
        slope = np.clip(relief(blur(3.5 * np.sqrt(np.clip(blot / 8, 0.01, 1)), 0.7), light), -0.8, 0.8)
        tone = 0.78 + 0.35 * slope + 0.3 * bell(slope - 0.45, 0.15) + 0.02 * fuzz
        return Drawing(mix(draw(1.0), tinted(tone, metal), shape), shape)

    own = {"missing_pin": missing_pin, "bent_pin": bent_pin, "solder_bridge": bridge}
    return Scene(draw(1.0), ramp(inside - 4), light, own)
