"""Walkers and riders, put together from a few flat limbs that move."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from edgeseg.scenes.canvas import LABELS, Canvas, Color, Face
from edgeseg.scenes.street import Plan

__all__ = ["Person", "paint_rider", "paint_walker"]

_PEDESTRIAN, _BICYCLIST = LABELS.index("pedestrian"), LABELS.index("bicyclist")

_CLOTHES: tuple[Color, ...] = (
    (40, 42, 50),
    (70, 60, 56),
    (120, 30, 34),
    (36, 56, 110),
    (150, 140, 120),
    (200, 200, 196),
    (70, 86, 60),
    (92, 92, 98),
    (196, 168, 40),
    (26, 26, 30),
)
_SKIN: tuple[Color, ...] = ((224, 180, 150), (190, 140, 108), (120, 84, 62), (236, 196, 172))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """Somebody on the street.

    Attributes:
        x, z: where they stand, metres.
        kind: index of looks.
        phase: of the step or of the pedals, radians.
        forward: 1 looks as the camera does, -1 towards it.
    """

    x: float
    z: float
    kind: int
    phase: float
    forward: int


def _limb(start: tuple[float, float], end: tuple[float, float], thick: float, thin: float) -> Array:
    """(4, 2) a bar from one point to another."""
    along = np.array(end) - np.array(start)
    normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    return np.array([start + normal * thick, start - normal * thick, end - normal * thin, end + normal * thin])


def _disc(x: float, y: float, wide: float, high: float) -> Array:
    angle = np.linspace(0, 2 * pi, 12, endpoint=False)
    return np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], 1)


def _upright(person: Person, shapes: list[tuple[Array, Color]], light: float) -> list[Face]:
    """Flat shapes in (across, up) metres as world polygons at the person's place."""
    faces: list[Face] = []
    for points, (red, green, blue) in shapes:
        flat = np.column_stack([points[:, 0] + person.x, points[:, 1], np.full(len(points), person.z)])
        faces.append((flat, (red * light, green * light, blue * light)))
    return faces


def paint_walker(canvas: Canvas, plan: Plan, person: Person) -> None:
    """Paint somebody who walks."""
    size = 0.92 + 0.03 * (person.kind % 6)
    swing = 0.2 * sin(person.phase)
    lift = 0.09 * abs(cos(person.phase))
    coat, trousers = _CLOTHES[person.kind % 10], _CLOTHES[person.kind // 10 % 10]
    skin = _SKIN[person.kind // 3 % 4]
    hair = (50, 40, 34) if person.forward > 0 else skin
    shapes: list[tuple[Array, Color]] = [
        (_limb((-0.08, 0.85), (-0.1 + swing * 0.6, 0.02 + lift), 0.1, 0.07), trousers),
        (
            _limb((0.08, 0.85), (0.1 - swing * 0.6, 0.02), 0.1, 0.07),
            (trousers[0] * 0.8, trousers[1] * 0.8, trousers[2] * 0.8),
        ),
        (_limb((-0.2, 1.4), (-0.3 - swing * 0.5, 0.85), 0.07, 0.05), (coat[0] * 0.8, coat[1] * 0.8, coat[2] * 0.8)),
        (_limb((0.2, 1.4), (0.3 - swing * 0.5, 0.85), 0.07, 0.05), coat),
        (np.array([(-0.2, 0.75), (0.2, 0.75), (0.24, 1.4), (0.12, 1.5), (-0.12, 1.5), (-0.24, 1.4)]), coat),
        (_limb((0, 1.45), (0, 1.58), 0.06, 0.06), skin),
        (_disc(0, 1.65, 0.1, 0.13), skin),
        (_disc(0, 1.7, 0.105, 0.09), hair),
    ]
    light = plan.shade(np.array([0.0, 0.3, -0.95]))
    canvas.faces(_upright(person, [(points * size, color) for points, color in shapes], light), _PEDESTRIAN)


def paint_rider(canvas: Canvas, plan: Plan, person: Person) -> None:
    """Paint somebody on a bicycle, who rides along the street."""
    for wheel in (0.52, -0.52) if person.forward > 0 else (-0.52, 0.52):
        angle = np.linspace(0, 2 * pi, 18)
        rim = np.column_stack(
            [np.full(18, person.x), 0.34 + 0.33 * np.sin(angle), person.z + wheel + 0.33 * np.cos(angle)]
        )
        canvas.line(rim, 0.045, (26, 26, 28), _BICYCLIST)
    frame = [(0.34, -0.52), (0.3, 0.05), (0.85, 0.42), (0.34, 0.52), (0.85, 0.42), (0.9, -0.15), (0.3, 0.05)]
    frame_points = np.array([(person.x, y, person.z + person.forward * z) for y, z in frame])
    canvas.line(frame_points, 0.05, (120, 30, 30) if person.kind % 2 else (40, 60, 90), _BICYCLIST)
    coat, trousers = _CLOTHES[person.kind % 10], _CLOTHES[person.kind // 10 % 10]
    knee = 0.13 * sin(person.phase)
    skin = _SKIN[person.kind // 3 % 4]
    shapes: list[tuple[Array, Color]] = [
        (_limb((-0.1, 0.98), (-0.14, 0.62 + knee), 0.09, 0.075), trousers),
        (_limb((-0.14, 0.62 + knee), (-0.11, 0.22 + knee), 0.07, 0.055), trousers),
        (_limb((0.1, 0.98), (0.14, 0.62 - knee), 0.09, 0.075), trousers),
        (_limb((0.14, 0.62 - knee), (0.11, 0.22 - knee), 0.07, 0.055), trousers),
        (_limb((-0.2, 1.42), (-0.3, 1.05), 0.06, 0.05), coat),
        (_limb((0.2, 1.42), (0.3, 1.05), 0.06, 0.05), coat),
        (_limb((-0.32, 1.04), (0.32, 1.04), 0.025, 0.025), (30, 30, 32)),
        (np.array([(-0.17, 0.9), (0.17, 0.9), (0.22, 1.4), (0.1, 1.52), (-0.1, 1.52), (-0.22, 1.4)]), coat),
        (_disc(0, 1.65, 0.095, 0.13), skin),
        (_disc(0, 1.7, 0.11, 0.1), (200, 200, 205) if person.kind % 3 else (46, 36, 30)),
    ]
    canvas.faces(_upright(person, shapes, plan.shade(np.array([0.0, 0.3, -0.95]))), _BICYCLIST)
