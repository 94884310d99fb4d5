"""What stands along the street: lamps, signals, signs, fences, trees, hedges, bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.scenes.canvas import LABELS, VOID, Canvas, Color, Face
from edgeseg.scenes.street import Plan
from edgeseg.scenes.textures import bare_tree, conifer, foliage

__all__ = ["Fence", "Thing", "paint_bin", "paint_fence", "paint_lamp", "paint_sign", "paint_signal", "paint_tree"]

_POLE, _SIGN = LABELS.index("pole"), LABELS.index("signsymbol")
_FENCE, _TREE = LABELS.index("fence"), LABELS.index("tree")

_GREENS = ((96, 128, 52), (74, 110, 46), (120, 138, 60), (84, 104, 56))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """Something that stands.

    Attributes:
        x, z: where, metres.
        side: -1 on the left of the road, 1 on the right.
        kind: index of its looks.
        size: in its own terms, about 1.
    """

    x: float
    z: float
    side: int
    kind: int
    size: float


@dataclass(frozen=True)
class Fence:
    """A fence along the street.

    Attributes:
        x: where it stands, metres.
        start, end: z, metres.
        kind: index of its looks.
    """

    x: float
    start: float
    end: float
    kind: int


def _bar(x: float, z: float, bottom: float, top: float, width: float, color: Array) -> list[Face]:
    """An upright bar, lighter on one half as a round one is."""
    half = width / 2
    low, high = np.array([x, bottom, z]), np.array([x, top, z])
    edge, middle = np.array([half, 0, 0]), np.array([half * 0.2, 0, 0])
    whole = np.array([low - edge, low + edge, high + edge, high - edge])
    dark = np.array([low + middle, low + edge, high + edge, high + middle])
    return [(whole, _color(color)), (dark, _color(color * 0.75))]


def _box(x: float, z: float, bottom: float, top: float, width: float) -> Array:
    half = width / 2
    return np.array([(x - half, bottom, z), (x + half, bottom, z), (x + half, top, z), (x - half, top, z)])


def _round(x: float, y: float, z: float, radius: float, corners: int = 16, turn: float = 0.0) -> Array:
    angle = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle), np.full(corners, z)])


def _color(values: Array) -> Color:
    red, green, blue = np.minimum(values, 255).tolist()
    return red, green, blue


def paint_lamp(canvas: Canvas, plan: Plan, thing: Thing) -> None:
    """Paint a street lamp with an arm over the road."""
    light = plan.shade(np.array([0.0, 0.0, -1.0]))
    color = np.array([(120.0, 124, 122), (52, 56, 54), (150, 152, 150)][thing.kind % 3]) * light
    top = 5.5 + 2.2 * thing.size
    reach = -thing.side * (0.9 + 0.5 * thing.size)
    arm = np.array([[thing.x, top - 0.05, thing.z], [thing.x + reach, top + 0.25, thing.z]])
    arm = np.concatenate([arm, arm[::-1] + np.array([0, 0.09, 0])])
    head = np.array([(reach, 0.2), (reach * 1.5, 0.28), (reach * 1.5, 0.4), (reach, 0.4)])
    lamp = np.column_stack([thing.x + head[:, 0], top + head[:, 1], np.full(4, thing.z)])
    faces = _bar(thing.x, thing.z, 0, 1.2, 0.26, color) + _bar(thing.x, thing.z, 1.2, top, 0.15, color)
    canvas.faces([*faces, (arm, _color(color)), (lamp, _color(color * 1.1))], _POLE)


def paint_signal(canvas: Canvas, plan: Plan, thing: Thing) -> None:
    """Paint a traffic light."""
    light = plan.shade(np.array([0.0, 0.0, -1.0]))
    canvas.faces(_bar(thing.x, thing.z, 0, 2.5, 0.14, np.array([70.0, 72, 72]) * light), _POLE)
    dark = np.array([22.0, 23, 24])
    faces: list[Face] = [(_box(thing.x, thing.z, 2.2, 3.35, 0.5), _color(dark * light))]
    faces.append((_box(thing.x, thing.z, 2.27, 3.28, 0.38), _color(dark * 0.6)))
    bright = thing.kind % 2
    colors = ((30, 220, 120) if bright else (16, 44, 30), (50, 40, 16), (60, 14, 12) if bright else (250, 50, 36))
    faces += [(_round(thing.x, 2.45 + 0.32 * i, thing.z, 0.12, 10), color) for i, color in enumerate(colors)]
    canvas.faces(faces, _SIGN)


def paint_sign(canvas: Canvas, plan: Plan, thing: Thing) -> None:
    """Paint a traffic sign on its post: a disc, a triangle, a board."""
    light = plan.shade(np.array([0.0, 0.0, -1.0])) * 0.5 + 0.5
    canvas.faces(_bar(thing.x, thing.z, 0, 2.9, 0.09, np.array([128.0, 130, 130]) * light), _POLE)
    x, z, y = thing.x, thing.z, 2.55
    white, red, blue = (np.array(c, float) * light for c in ((236, 236, 232), (196, 24, 34), (24, 74, 160)))
    black, green = np.array([24.0, 24, 26]), np.array([14.0, 92, 62]) * light
    looks = thing.kind % 5
    radius = 0.34 * thing.size
    if looks == 0:
        parts = [(_round(x, y, z, radius), red), (_round(x, y, z, radius * 0.76), white)]
        parts += [
            (_box(x + o * radius, z, y - 0.3 * radius, y + 0.3 * radius, 0.3 * radius), black) for o in (-0.3, 0.3)
        ]
    elif looks == 1:
        parts = [
            (_round(x, y, z, radius * 1.2, 3, np.pi / 2), red),
            (_round(x, y, z, radius * 0.8, 3, np.pi / 2), white),
        ]
        parts.append((_box(x, z, y - 0.25 * radius, y + 0.4 * radius, 0.2 * radius), black))
    elif looks == 2:
        parts = [
            (_round(x, y, z, radius), blue),
            (_box(x, z, y - 0.15 * radius, y + 0.5 * radius, 0.25 * radius), white),
        ]
    elif looks == 3:
        parts = [(_box(x, z, y - 0.5, y + 0.45, 0.75), blue if thing.kind % 2 else white)]
        ink = white if thing.kind % 2 else black
        parts += [(_box(x, z, y - 0.32 + 0.24 * i, y - 0.22 + 0.24 * i, 0.5), ink) for i in range(3)]
    else:
        parts = [(_box(x, z, y - 0.35, y + 0.5, 1.5), white), (_box(x, z, y - 0.3, y + 0.45, 1.4), green)]
        parts += [(_box(x, z, y - 0.15 + 0.26 * i, y - 0.03 + 0.26 * i, 1.0 - 0.2 * i), white) for i in range(2)]
    canvas.faces([(points, _color(color)) for points, color in parts], _SIGN)


def paint_bin(canvas: Canvas, plan: Plan, thing: Thing) -> None:
    """Paint a litter bin, which CamVid's eleven classes leave void."""
    light = plan.shade(np.array([0.0, 0.0, -1.0]))
    color = np.array([(38.0, 42, 44), (40, 80, 52), (110, 30, 30)][thing.kind % 3]) * light
    canvas.faces(_bar(thing.x, thing.z, 0, 1.0, 0.5, color), VOID)


def paint_fence(canvas: Canvas, plan: Plan, fence: Fence) -> None:
    """Paint a fence: boards, or railings with a rail above and below."""
    x, end = fence.x, fence.end
    light = plan.shade(np.array([-np.sign(x), 0.0, 0.0]))
    start = max(fence.start, float(canvas.camera.position[2]) - 2)
    if end - start < 0.5:
        return
    wood = fence.kind % 2 == 0
    height = 1.7 if wood else 1.25
    color = np.array((126.0, 98, 70) if wood else (44, 48, 50)) * light
    panel = np.zeros((24, 96, 4), np.float32)
    columns = np.arange(96)
    gap = columns % 8 < (1 if wood else 4)
    tone = np.where(gap, 0.55 if wood else 1.7, 1.0 + 0.12 * np.sin(columns * 1.7))
    panel[:, :, :3] = color * tone[:, None]
    panel[[0, 1, 20, 21]] *= 0.8
    step = 6.0
    for low in np.arange(np.floor(start / step) * step, end, step)[::-1]:
        a, b = max(low, start), min(low + step, end)
        if b <= a:
            continue
        panel[:, :, 3] = canvas.haze((a + b) / 2 - canvas.camera.position[2])
        corners = np.array([[x, 0, a], [x, 0, b], [x, height, b], [x, height, a]])
        shown = np.clip(panel, 0, 255).astype(np.uint8)
        origin, across = np.array([x, 0, low]), np.array([0, 0, step])
        canvas.texture(shown, origin, across, np.array([0, height, 0.0]), _FENCE, corners)


def paint_tree(canvas: Canvas, plan: Plan, thing: Thing, *, bush: bool = False) -> None:
    """Paint a tree, or a bush that reaches to the ground."""
    light = plan.shade(np.array([0.0, 0.5, -0.87]))
    red, green, blue = _GREENS[thing.kind % len(_GREENS)]
    color = round(red * light * 1.25), round(green * light * 1.25), round(blue * light * 1.25)
    seed, sun, size = thing.kind % 5, float(np.round(plan.sun[0], 1)), thing.size
    x, z = thing.x, thing.z
    if bush:
        canvas.sprite(foliage(seed, color, sun), x - 1.5 * size, x + 1.5 * size, 2.4 * size, -0.5, z, _TREE)
        return
    bare = plan.leaves == "bare" or (plan.leaves == "mixed" and thing.kind % 2)
    if bare and thing.kind % 7:
        bark = round(92 * light), round(82 * light), round(74 * light)
        canvas.sprite(bare_tree(seed, bark, sun), x - 3.6 * size, x + 3.6 * size, 7.6 * size, 0, z, _TREE)
    elif thing.kind % 7 == 0:
        canvas.sprite(conifer(seed, color, sun), x - 1.7 * size, x + 1.7 * size, 7.0 * size, 0, z, _TREE)
    else:
        canvas.faces(_bar(x, z, 0, 3.2 * size, 0.3 * size, np.array([82.0, 70, 58]) * light), _TREE)
        canvas.sprite(foliage(seed, color, sun), x - 2.9 * size, x + 2.9 * size, 7.4 * size, 1.6 * size, z, _TREE)
