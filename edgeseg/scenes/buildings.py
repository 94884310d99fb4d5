"""Houses along both sides of the street, their walls, and what stands in the gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.libraries import require
from edgeseg.scenes.canvas import LABELS, Canvas
from edgeseg.scenes.street import Plan, stream
from edgeseg.scenes.textures import noise, speckle

__all__ = ["House", "lots", "paint_house"]

_BUILDING = LABELS.index("building")
_SCALE = 22  # pixels of a wall's texture for a metre
_STOREY = 2.9
_DEPTH = 9.0
_LOTS = 5  # in a block
_BLOCK = 60.0  # metres

Image = NDArray[np.uint8]

_PLASTER = ((226, 216, 190), (238, 236, 228), (205, 190, 160), (214, 200, 182), (190, 186, 178), (168, 158, 142))
_BRICK = ((150, 92, 70), (172, 140, 104), (122, 84, 66), (186, 164, 122), (134, 110, 92))
_ROOFS = ((84, 74, 72), (112, 72, 58), (70, 72, 78), (96, 84, 74))
_SHOPS = ((150, 26, 34), (24, 52, 120), (20, 90, 58), (36, 36, 40), (196, 150, 40), (210, 210, 206), (110, 40, 90))


@dataclass(frozen=True)
class House:
    """One lot.

    Attributes:
        seed: of its looks.
        side: -1 left, 1 right.
        start, end: z, metres.
        storeys: count; 0 for a gap without a house.
        brick: whether its walls are brick.
        roof: height of a pitched roof, metres; 0 for a flat one.
    """

    seed: int
    side: int
    start: float
    end: float
    storeys: int
    brick: bool
    roof: float

    @property
    def height(self) -> float:
        """Of the wall, metres."""
        return _STOREY * self.storeys + 0.7


def lots(plan: Plan, side: int, start: float, end: float) -> Iterator[House]:
    """The lots of one side that reach into z from start to end, in order."""
    for block in range(int(start // _BLOCK), int(end // _BLOCK) + 1):
        rng = stream(plan.seed, 1, side, block)
        cuts = np.cumsum(rng.uniform(0.6, 1.4, _LOTS))
        edges = np.concatenate([[0.0], cuts * (_BLOCK / cuts[-1])]) + block * _BLOCK
        for index in range(_LOTS):
            built = rng.random() < plan.density[(side + 1) // 2]
            storeys = int(np.clip(round(rng.normal(plan.storeys, 0.7)), 1, 6)) if built else 0
            brick, roof = bool(rng.random() < plan.brick), float(rng.uniform(1.6, 3.2) * (rng.random() < 0.7))
            seed = plan.seed * 1_000_003 + abs(block) * 64 + (block < 0) * 32 + (side + 1) * 8 + index
            if edges[index + 1] > start and edges[index] < end:
                yield House(seed, side, float(edges[index]), float(edges[index + 1]), storeys, brick, roof)


def paint_house(canvas: Canvas, plan: Plan, house: House) -> None:
    """Paint a house: roof, the wall that faces the camera, the front."""
    x, height, side = plan.wall(house.side), house.height, house.side
    camera = canvas.camera.position
    front = plan.shade(np.array([-side, 0.0, 0.0]))
    gable = plan.shade(np.array([0.0, 0.0, -1.0]))
    rng = np.random.default_rng([house.seed, 7])
    color = np.array(_ROOFS[rng.integers(len(_ROOFS))], float)
    out = x + side * _DEPTH
    ridge = np.array([x + side * _DEPTH / 2, height + house.roof, house.start])
    step = np.array([0.0, 0.0, house.end - house.start])
    eaves = np.array([x - side * 0.25, height, house.start])
    if house.roof:
        slope = plan.shade(np.array([-side * 0.5, 0.87, 0.0]))
        roof = (np.array([eaves, eaves + step, ridge + step, ridge]), tuple(color * slope))
        canvas.faces([*_chimney(ridge, rng, color * gable), roof], _BUILDING)
    if house.start > camera[2]:
        corners = np.array([[x, 0, house.start], [out, 0, house.start], [out, height, house.start], [x, height, 0]])
        corners[3, 2] = house.start
        if house.roof:
            corners = np.array([*corners[:3], ridge, corners[3]])
        wall = _lit(canvas, _plain_wall(house.seed, house.brick), gable, (house.start - camera[2],) * 2)
        across = np.array([side * _DEPTH, 0, 0])
        up = np.array([0, height + house.roof, 0.0])
        canvas.texture(wall, np.array([x, 0, house.start]), across, up, _BUILDING, corners)
    corners = np.array([[x, 0, house.start], [x, 0, house.end], [x, height, house.end], [x, height, house.start]])
    distance = abs(house.end + house.start) / 2 - camera[2]
    level = int(distance > 35) + int(distance > 75)
    texture = _front(house, level)
    lit = _lit(canvas, texture, front, (house.start - camera[2], house.end - camera[2]))
    canvas.texture(lit, np.array([x, 0, house.start]), step, np.array([0, height, 0.0]), _BUILDING, corners)


def _chimney(ridge: NDArray[np.float64], rng: np.random.Generator, color: NDArray[np.float64]) -> list[Any]:
    if rng.random() < 0.4:
        return []
    x, y, z = ridge[0], ridge[1], ridge[2] + 0.4
    box = np.array([[x - 0.4, y - 1, z], [x + 0.4, y - 1, z], [x + 0.4, y + 1.1, z], [x - 0.4, y + 1.1, z]])
    return [(box, tuple(color * 1.1))]


def _lit(canvas: Canvas, texture: Image, light: float, distances: tuple[float, float]) -> Image:
    """A texture in its light, with the haze from its first to its last column."""
    lit = canvas.cv2.convertScaleAbs(texture, alpha=light)
    away = np.maximum(np.linspace(*distances, lit.shape[1]), 0)
    lit[:, :, 3] = (255 * (1 - np.exp(-away / canvas.clear))).astype(np.uint8)
    return np.asarray(lit, np.uint8)


def _surface(rng: np.random.Generator, brick: bool, rows: int, columns: int) -> NDArray[np.float32]:
    """(rows, columns, 3) bare wall."""
    palette = _BRICK if brick else _PLASTER
    color = np.asarray(palette[rng.integers(len(palette))], np.float32) * rng.uniform(0.85, 1.1)
    shade = 1 + 0.05 * noise(rng, rows, columns, (2, 5, 11)) + 0.03 * speckle(rng, rows, columns, 0.8)
    if brick:
        courses, bricks = -(-rows // 3), -(-columns // 6) + 1
        grains = rng.normal(1, 0.07, (courses, bricks)).astype(np.float32).repeat(3, 0).repeat(6, 1)
        shade *= grains[:rows, :columns]
        shade[2::3] *= 1.06
    return np.asarray(color * shade[:, :, None], np.float32)


@lru_cache(maxsize=64)
def _plain_wall(seed: int, brick: bool) -> Image:
    rng = np.random.default_rng([seed, 8])
    return _with_haze(_surface(rng, brick, 192, 192))


def _with_haze(image: NDArray[np.float32]) -> Image:
    haze = np.zeros((*image.shape[:2], 1), np.float32)
    return np.ascontiguousarray(np.clip(np.concatenate([image, haze], 2), 0, 255).astype(np.uint8))


@lru_cache(maxsize=384)
def _front(house: House, level: int) -> Image:
    """(h, w, 4) the front of a house, halved in size `level` times."""
    cv2 = require("cv2", "draw scenes")
    if level:
        return np.asarray(cv2.pyrDown(_front(house, level - 1)), np.uint8)
    rng = np.random.default_rng([house.seed, 9])
    width = house.end - house.start
    rows, columns = round(house.height * _SCALE), round(width * _SCALE)
    wall = _surface(rng, house.brick, rows, columns)
    bays = max(1, round(width / rng.uniform(2.1, 3.2)))
    size = rng.uniform(0.9, 1.5), rng.uniform(1.2, 1.8)
    frame = np.array([245, 245, 240]) * rng.uniform(0.75, 1) if rng.random() < 0.7 else np.array([60, 56, 54])
    shop = rng.random() < 0.5
    for storey in range(house.storeys):
        if storey == 0 and shop:
            continue
        for bay in range(bays):
            middle = (bay + 0.5) * width / bays
            if storey == 0 and bay == bays // 2:
                _opening(wall, rng, middle, 0.0, (1.0, 2.1), frame, door=True)
            else:
                _opening(wall, rng, middle, storey * _STOREY + 0.9, size, frame)
    if shop:
        _shop(wall, rng, bays)
    wall[: round(0.25 * _SCALE)] *= 0.8
    wall[round(0.25 * _SCALE) : round(0.4 * _SCALE)] *= 1.12
    wall[-round(0.4 * _SCALE) :] *= np.linspace(0.95, 0.7, round(0.4 * _SCALE))[:, None, None]
    wall[:, :2] *= 0.8
    return _with_haze(wall)


def _opening(
    wall: NDArray[np.float32],
    rng: np.random.Generator,
    middle: float,
    bottom: float,
    size: tuple[float, float],
    frame: NDArray[np.float64],
    *,
    door: bool = False,
) -> None:
    """A window or door into a wall, in metres from its lower left corner."""
    top = wall.shape[0] - round((bottom + size[1]) * _SCALE)
    low = wall.shape[0] - round(bottom * _SCALE)
    left, right = round((middle - size[0] / 2) * _SCALE), round((middle + size[0] / 2) * _SCALE)
    if top < 2 or left < 2 or right > wall.shape[1] - 2:
        return
    wall[top - 3 : top - 1, left - 3 : right + 3] *= 1.12
    wall[top:low, left:right] = frame
    if door:
        wall[top + 2 : low, left + 2 : right - 2] = rng.uniform(20, 150, 3)
        return
    wall[low : low + 3, left - 3 : right + 3] = np.minimum(wall[low : low + 3, left - 3 : right + 3] * 1.2, 240)
    pane = np.linspace(rng.uniform(50, 130), rng.uniform(25, 60), low - top - 4, dtype=np.float32)[:, None, None]
    wall[top + 2 : low - 2, left + 2 : right - 2] = pane * np.array([0.92, 1.0, 1.1])
    wall[(top + low) // 2, left:right] = frame
    wall[top:low, (left + right) // 2] = frame
    wall[top + 2 : top + 5, left + 2 : right - 2] *= 0.6  # the reveal's own shadow


def _shop(wall: NDArray[np.float32], rng: np.random.Generator, bays: int) -> None:
    """A shop on the ground floor: fascia, glass, and what is behind it."""
    rows, columns = wall.shape[:2]
    base, high = rows - round(0.45 * _SCALE), rows - round(2.35 * _SCALE)
    color = np.array(_SHOPS[rng.integers(len(_SHOPS))], float)
    wall[high - round(0.6 * _SCALE) :, 2:-2] = color * 0.75
    wall[high - round(0.6 * _SCALE) : high, 2:-2] = color
    letters = np.asarray(rng.random(columns) < 0.6)
    text = slice(high - round(0.42 * _SCALE), high - round(0.16 * _SCALE))
    inside = slice(columns // 4, 3 * columns // 4)
    wall[text, inside][:, letters[inside]] = 235 if color.mean() < 150 else 40
    for bay in range(bays):
        left, right = round(bay * columns / bays) + 4, round((bay + 1) * columns / bays) - 4
        if right - left < 6:
            continue
        glass = 60 + 18 * noise(rng, base - high, right - left, (3, 7))[:, :, None]
        wall[high:base, left:right] = np.clip(glass * rng.uniform(0.6, 1.5, 3), 12, 230)
        wall[high : high + 4, left:right] *= 0.5
