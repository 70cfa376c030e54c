"""The demo's packaged chip, flawless and with the defects that change its build."""

from typing import final

import cv2
import numpy as np

from anomaly_lab.data.sets.demo.canvas import (
    SIDE,
    ZOOM,
    Array,
    Drawing,
    N,
    Scene,
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
from anomaly_lab.data.sets.demo.defects import blob
from anomaly_lab.data.sets.demo.scenes import Pose, dyed, lamp, posed, shifted

# Leads a side, their spacing and their length.
PINS = 6
PITCH = 29.0
REACH = 36.0
# Half sizes of the case.
WIDE = 90.0
HIGH = 46.0


@final
class Chip:
    """A gull-wing package soldered to a green board."""

    def __init__(self, rng: np.random.Generator) -> None:
        pose = posed(rng, 0.07, 9, 0.04)
        self.light = lamp(rng)
        self.u = pose.u
        self.v = pose.v
        self.inside = np.minimum(WIDE - np.abs(self.u), HIGH - np.abs(self.v))
        self.along = np.abs(self.v) - HIGH
        self.number = np.clip(np.rint(self.u / PITCH + (PINS - 1) / 2), 0, PINS - 1)
        self.case = case(pose, self.inside, rng, self.light)
        self.fuzz = grain(rng, 0.5)
        self.metal = dyed(rng, (0.76, 0.76, 0.74), 0.08)
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
        which = int(rng.integers(PINS))
        half = self.half(rng)
        gone = (self.number == which) * half
        swing = int(rng.choice([-1, 1])) * rng.uniform(10, 14) * np.square(np.clip(self.along / REACH, 0, 1))
        bent, there = self.lead(self.u - (which - (PINS - 1) / 2) * PITCH - swing)
        image = mix(mix(self.torn(gone), bent, there * half), self.case, ramp(self.inside))
        return Drawing(
            image, np.maximum(gone * np.maximum(self.cover, self.pad), there * half) * ramp(-self.inside)
        )

    def bridge(self, rng: np.random.Generator) -> Drawing:
        """Solder joins two neighbouring leads."""
        x = (int(rng.integers(PINS - 1)) - PINS / 2 + 1) * PITCH
        y = HIGH + rng.uniform(23, 31)
        inside = blob(
            rng, (self.u - x) * 0.7, self.v - int(rng.choice([-1, 1])) * y, rng.uniform(8.5, 10.5), 0.15
        )
        dome = 4 * np.sqrt(np.clip(inside / 10, 0.01, 1))
        slope = np.clip(relief(blur(dome, 0.7), self.light), -0.8, 0.8)
        shape = soft(inside, 1.5)
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
