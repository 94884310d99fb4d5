"""Cars and vans: a side profile drawn out to the width of the car."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.scenes.canvas import LABELS, Canvas, Color, Face
from edgeseg.scenes.street import Plan

__all__ = ["Vehicle", "footprint", "paint_vehicle"]

_CAR = LABELS.index("car")
_DETAIL = 65.0  # metres beyond which wheels and lamps are left out

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Shape:
    """A car's shape; (length, height) in metres, the front at positive length.

    Attributes:
        profile: its outline from the rear's lower end over the roof to the front's lower end.
        glass: which strips between its points are windows: the rear's and the windscreen.
        windows: the side windows.
        wheels: lengths at which the wheels stand, and their radius.
        width: metres.
    """

    profile: Array
    glass: tuple[int, ...]
    windows: tuple[Array, ...]
    wheels: tuple[float, float, float]
    width: float


_SHAPES = (
    _Shape(
        np.array(
            [
                (-1.9, 0.28),
                (-1.95, 0.85),
                (-1.75, 1.0),
                (-1.4, 1.42),
                (0.35, 1.46),
                (1.0, 1.0),
                (1.8, 0.82),
                (1.98, 0.6),
                (1.95, 0.26),
            ]
        ),
        (2, 4),
        (
            np.array([(-1.5, 1.0), (-1.25, 1.33), (-0.45, 1.36), (-0.45, 1.0)]),
            np.array([(-0.37, 1.0), (-0.37, 1.36), (0.25, 1.37), (0.75, 1.0)]),
        ),
        (-1.2, 1.22, 0.31),
        1.7,
    ),
    _Shape(
        np.array(
            [
                (-2.25, 0.3),
                (-2.3, 0.9),
                (-1.5, 1.0),
                (-0.95, 1.4),
                (0.4, 1.42),
                (1.05, 0.97),
                (2.1, 0.82),
                (2.25, 0.55),
                (2.2, 0.28),
            ]
        ),
        (2, 4),
        (
            np.array([(-1.25, 1.0), (-0.85, 1.31), (-0.25, 1.33), (-0.25, 1.0)]),
            np.array([(-0.17, 1.0), (-0.17, 1.33), (0.35, 1.33), (0.85, 1.0)]),
        ),
        (-1.35, 1.4, 0.32),
        1.76,
    ),
    _Shape(
        np.array(
            [
                (-2.4, 0.35),
                (-2.42, 1.2),
                (-2.4, 1.95),
                (-2.3, 2.08),
                (1.2, 2.1),
                (1.85, 1.25),
                (2.4, 1.05),
                (2.5, 0.6),
                (2.45, 0.3),
            ]
        ),
        (1, 4),
        (np.array([(0.35, 1.2), (0.35, 1.8), (1.15, 1.8), (1.55, 1.2)]),),
        (-1.5, 1.55, 0.35),
        1.9,
    ),
)

_PAINTS: tuple[Color, ...] = (
    (184, 188, 192),
    (214, 214, 214),
    (36, 38, 42),
    (30, 44, 92),
    (140, 22, 28),
    (96, 100, 106),
    (20, 76, 66),
    (62, 92, 140),
    (150, 146, 120),
    (104, 30, 44),
)


@dataclass(frozen=True)
class Vehicle:
    """A car on the road.

    Attributes:
        x, z: its middle, metres.
        forward: 1 drives as the camera does, -1 towards it.
        kind: index of its shape and paint.
        braking: whether its rear lamps are bright.
    """

    x: float
    z: float
    forward: int
    kind: int
    braking: bool = False


def footprint(car: Vehicle) -> Array:
    """(8, 3) corners of the box that casts its shadow: it narrows towards the roof."""
    shape = _SHAPES[_shape_of(car)]
    half, length = shape.width / 2, float(shape.profile[:, 0].max())
    top = float(shape.profile[:, 1].max())
    low = [(x, 0.6, z) for x in (-half, half) for z in (-length, length)]
    high = [(x, top, z) for x in (-half * 0.8, half * 0.8) for z in (-length * 0.7, length * 0.3)]
    return np.array(low + high) * (1, 1, car.forward) + (car.x, 0, car.z)


def _shape_of(car: Vehicle) -> int:
    return (0, 1, 0, 0, 1, 2)[car.kind % 6]


def paint_vehicle(canvas: Canvas, plan: Plan, car: Vehicle) -> None:
    """Paint a car as it is seen from the camera."""
    shape, eye = _SHAPES[_shape_of(car)], canvas.camera.position
    paint = np.array(_PAINTS[car.kind // 6 % len(_PAINTS)])
    half = shape.width / 2
    near_side = 1 if eye[0] > car.x else -1
    turn = np.array([1, 1, car.forward])
    place = np.array([car.x, 0, car.z])
    close = abs(car.z - eye[2]) < _DETAIL
    faces: list[Face] = []

    def world(points: Array, x: float) -> Array:
        return np.asarray(np.column_stack([np.full(len(points), x), points[:, 1], points[:, 0]]) * turn + place)

    if close:  # what is dark below it, and the far wheels
        low = np.array(
            [(shape.wheels[0], 0.03), (shape.wheels[1], 0.03), (shape.wheels[1], 0.4), (shape.wheels[0], 0.4)]
        )
        faces += [(world(low, near_side * x), (16, 16, 18)) for x in (-half * 0.85, half * 0.8)]
        faces += [(world(_wheel(shape, i, 1.0), -near_side * half * 0.9), (14, 14, 15)) for i in (0, 1)]
        across = np.array([[-half * 0.9, 0.02, 0], [half * 0.9, 0.02, 0], [half * 0.9, 0.4, 0], [-half * 0.9, 0.4, 0]])
        faces += [(across + np.array([0, 0, z]) + place, (13, 13, 14)) for z in (shape.wheels[1], shape.wheels[0])]
    for index in range(len(shape.profile) - 1):
        faces += _strip(plan, shape, index, paint, place, turn, eye)
    side = world(shape.profile, near_side * half)
    light = plan.shade(np.array([near_side, 0.0, 0.0]))
    faces.append((side, _tone(paint * 0.92, light)))
    if close:
        skirt = np.array([(p, h) for p, h in shape.profile if h < 0.4] + [(1.9, 0.5), (-1.9, 0.5)])
        faces.append((world(skirt, near_side * half), _tone(paint * 0.7, light)))
    faces += [
        (world(w, near_side * (half + 0.005)), _tone(np.array([46.0, 54, 62]), 0.6 + 0.4 * light))
        for w in shape.windows
    ]
    if close:
        for scale, color in ((1.0, (18.0, 18.0, 20.0)), (0.6, (120.0, 122.0, 126.0)), (0.2, (50.0, 50.0, 52.0))):
            faces += [(world(_wheel(shape, i, scale), near_side * (half + 0.02)), color) for i in (0, 1)]
        faces += _ends(car, shape, eye, place, turn)
    canvas.faces(faces, _CAR)


def _strip(plan: Plan, shape: _Shape, index: int, paint: Array, place: Array, turn: Array, eye: Array) -> list[Face]:
    """One strip of the hull, where it faces the camera, with its window."""
    (z0, y0), (z1, y1) = shape.profile[index], shape.profile[index + 1]
    length = float(np.hypot(z1 - z0, y1 - y0))
    normal = np.array([0.0, (z1 - z0) / length, -(y1 - y0) / length]) * turn
    half = shape.width / 2
    quad = np.array([[-half, y0, z0], [half, y0, z0], [half, y1, z1], [-half, y1, z1]]) * turn + place
    if float(normal @ (eye - quad[0])) <= 0:
        return []
    light = plan.shade(normal)
    found: list[Face] = [(quad, _tone(paint, light))]
    if index in shape.glass:
        middle = quad.mean(0)
        glass = np.array([64.0, 74, 84]) if y1 > y0 else np.array([92.0, 104, 116])
        found.append((middle + (quad - middle) * np.array([0.86, 0.8, 0.8]), _tone(glass, 0.5 + 0.5 * light)))
    return found


def _ends(car: Vehicle, shape: _Shape, eye: Array, place: Array, turn: Array) -> list[Face]:
    """Lamps, plate and bumper of the end that is seen."""
    rear = (eye[2] < car.z) == (car.forward > 0)
    index = 0 if rear else len(shape.profile) - 2
    low, high = sorted((shape.profile[index], shape.profile[index + 1]), key=lambda p: p[1])
    half = shape.width / 2

    def patch(left: float, right: float, bottom: float, top: float, color: Color) -> Face:
        ends = [low + (high - low) * share for share in (bottom, top)]
        points = [(left, *ends[0][::-1]), (right, *ends[0][::-1]), (right, *ends[1][::-1]), (left, *ends[1][::-1])]
        out = -0.012 if rear else 0.012
        return (np.array(points) + np.array([0, 0, out])) * turn + place, color

    lamp: Color = ((255, 40, 30) if car.braking else (160, 20, 22)) if rear else (240, 240, 232)
    plate: Color = (214, 182, 40) if rear else (226, 226, 222)
    faces = [patch(-half, half, 0.0, 0.3, (52, 52, 55)), patch(-0.26, 0.26, 0.36, 0.55, plate)]
    faces += [patch(s * half * 0.62, s * half * 0.97, 0.55, 0.92, lamp) for s in (-1, 1)]
    return faces


def _wheel(shape: _Shape, index: int, scale: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = shape.wheels[2]
    return np.stack([shape.wheels[index] + scale * radius * np.cos(angle), radius + scale * radius * np.sin(angle)], 1)


def _tone(color: Array, light: float) -> Color:
    red, green, blue = np.minimum(color * light, 255).tolist()
    return red, green, blue
