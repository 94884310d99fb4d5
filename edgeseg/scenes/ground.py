"""The ground: road with its marks, kerbs, pavements and verges, in perspective, and the shadows on it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeseg.libraries import require
from edgeseg.scenes.canvas import LABELS, Canvas
from edgeseg.scenes.street import Plan, Street, plan, stream
from edgeseg.scenes.textures import noise, speckle

__all__ = ["cast", "paint_ground"]

_HALF = 24.0  # metres from the middle of the road to the texture's edge
_PERIOD = 32.0  # metres after which the texture repeats
_SCALE = 16  # pixels for a metre
_BANDS = ((-8.0, 9.0, 0), (9.0, 24.0, 1), (24.0, 70.0, 2), (70.0, 900.0, 3))
"""From and to, metres before the camera, and the level of the texture there."""

Image = NDArray[np.uint8]


def paint_ground(canvas: Canvas, plan: Plan) -> None:
    """Paint everything below the horizon."""
    ahead = float(canvas.camera.position[2])
    for start, end, level in reversed(_BANDS):
        texture = _texture(Street(plan.seed), level)
        length = _PERIOD if level < 3 else 2000.0
        first = (ahead + start) // length * length
        # A texture that repeats is painted a period at a time.
        for base in np.arange(first, ahead + end, length):
            low, high = max(ahead + start, base), min(ahead + end, base + length)
            corners = np.array([[-_HALF, 0, low], [_HALF, 0, low], [_HALF, 0, high], [-_HALF, 0, high]])
            origin = np.array([-_HALF, 0, base])
            canvas.texture(texture, origin, np.array([2 * _HALF, 0, 0.0]), np.array([0, 0, length]), None, corners)
    _paint_labels(canvas, plan, ahead)
    _paint_haze(canvas)


def _paint_labels(canvas: Canvas, plan: Plan, ahead: float) -> None:
    pavement = LABELS.index("pavement")
    left, right = (plan.road + width for width in plan.pavement)
    verge = LABELS.index("tree") if plan.grass else pavement
    strips = [(-400.0, 400.0, verge), (-left, right, pavement), (-plan.road, plan.road, LABELS.index("road"))]
    for start, end, label in strips:
        shape = canvas.camera.polygon(
            np.array([[start, 0, ahead - 8], [end, 0, ahead - 8], [end, 0, ahead + 900], [start, 0, ahead + 900]])
        )
        if shape is not None:
            canvas.cv2.fillPoly(canvas.labels, [np.rint(shape * 16).astype(np.int32)], label, 8, 4)


def _paint_haze(canvas: Canvas) -> None:
    """Haze by row: the ground's distance hardly changes along one."""
    horizon = canvas.camera.horizon
    rows = np.arange(max(0, int(horizon)), canvas.camera.height)
    distance = canvas.camera.focal * canvas.camera.position[1] / np.maximum(rows - horizon, 0.2)
    canvas.colors[rows, :, 3] = (255 * (1 - np.exp(-distance / canvas.clear))).astype(np.uint8)[:, None]


def cast(points: NDArray[np.float64], sun: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2 N, 3) what holds the shadow of points on the ground: the points under them and where their shadows fall."""
    under = points * (1, 0, 1)
    fallen = points - sun * (points[:, 1] / sun[1])[:, None]
    return np.concatenate([under, fallen])


@lru_cache(maxsize=16)
def _texture(street: Street, level: int) -> Image:
    """(h, w, 4) the strip from the left to the right, the far end first; level 3 is the mean over its length."""
    cv2 = require("cv2", "draw scenes")
    if level == 3:
        mean = _texture(street, 2).astype(np.float32).mean(0, keepdims=True)
        return np.asarray(np.repeat(mean, 2, 0).astype(np.uint8))
    if level:
        return np.asarray(cv2.pyrDown(_texture(street, level - 1), borderType=cv2.BORDER_REFLECT), np.uint8)
    this = plan(street)
    rng = stream(this.seed, 2)
    rows, columns = round(_PERIOD * _SCALE), round(2 * _HALF * _SCALE)
    image = _verge(rng, this, rows, columns)
    left, right = this.road + this.pavement[0], this.road + this.pavement[1]
    _between(image, -left, right)[:] = _slabs(
        rng, (rows, round((right + _HALF) * _SCALE) - round((_HALF - left) * _SCALE))
    )
    for edge in (-this.road, this.road):
        kerb = _between(image, min(edge, edge + np.sign(edge) * 0.16), max(edge, edge + np.sign(edge) * 0.16))
        kerb[:] = 168 + 8 * speckle(rng, kerb.shape[0], kerb.shape[1], 1.0)[:, :, None]
        kerb[:: round(0.9 * _SCALE)] *= 0.75
    road = _between(image, -this.road, this.road)
    road[:] = _asphalt(rng, this, road.shape[0], road.shape[1])
    _marks(image, rng, this)
    light = this.shade(np.array([0.0, 1.0, 0.0]))
    haze = np.zeros((rows, columns, 1), np.float32)
    return np.asarray(np.clip(np.concatenate([image * light, haze], 2), 0, 255).astype(np.uint8))


def _between(image: NDArray[np.float32], start: float, end: float) -> NDArray[np.float32]:
    """The columns from one x to another."""
    return image[:, round((start + _HALF) * _SCALE) : round((end + _HALF) * _SCALE)]


def _verge(rng: np.random.Generator, plan: Plan, rows: int, columns: int) -> NDArray[np.float32]:
    color = np.array([86, 112, 52] if plan.grass else [142, 136, 128], np.float32)
    weight = 0.16 if plan.grass else 0.07
    shade = 1 + weight * noise(rng, rows, columns, (9, 27)) + weight * speckle(rng, rows, columns, 0.9)
    return np.asarray(color * shade[:, :, None], np.float32)


def _slabs(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    step = 11
    down, along = -(-shape[0] // step), -(-shape[1] // step)
    tone = rng.normal(1, 0.05, (down, along)).astype(np.float32).repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
    tone = tone + 0.04 * speckle(rng, shape[0], shape[1], 1.0) + 0.05 * noise(rng, shape[0], shape[1], (3, 7))
    tone[::step] *= 0.8
    tone[:, ::step] *= 0.85
    color = np.array([150, 146, 142], np.float32) * rng.uniform(0.8, 1.15)
    return np.asarray(color * tone[:, :, None], np.float32)


def _asphalt(rng: np.random.Generator, plan: Plan, rows: int, columns: int) -> NDArray[np.float32]:
    cv2 = require("cv2", "draw scenes")
    tone = 1 + 0.05 * noise(rng, rows, columns, (2, 5, 11)) + 0.05 * speckle(rng, rows, columns, 0.7)
    x = np.linspace(-plan.road, plan.road, columns, dtype=np.float32)
    for lane in (-plan.road / 2, plan.road / 2):  # what wheels have polished and oil has darkened
        tone += 0.05 * (np.exp(-(((np.abs(x - lane) - 0.75) / 0.3) ** 2)) - np.exp(-(((x - lane) / 0.35) ** 2)))
    for _ in range(int(rng.integers(1, 5))):  # patches
        y, at = int(rng.integers(rows)), int(rng.integers(columns))
        tone[y : y + int(rng.integers(20, 120)), at : at + int(rng.integers(10, 40))] *= rng.uniform(0.8, 0.95)
    for _ in range(int(rng.integers(2, 6))):  # cracks
        steps = np.cumsum(rng.normal(0, 1.2, 40))
        points = np.stack([rng.integers(columns) + steps, rng.integers(rows) + np.arange(40) * 3], 1)
        cv2.polylines(tone, [points.astype(np.int32)], False, 0.72, 1)
    color = np.array([104, 104, 108], np.float32) * rng.uniform(0.8, 1.2)
    return np.asarray(color * tone[:, :, None], np.float32)


def _marks(image: NDArray[np.float32], rng: np.random.Generator, plan: Plan) -> None:
    """Middle line, edge lines, a drain."""
    white, yellow = np.array([222, 222, 216], np.float32), np.array([206, 176, 60], np.float32)
    worn = 0.75 + 0.1 * noise(rng, image.shape[0], image.shape[1], (40,))[:, :, None]

    def line(x: float, wide: float, color: NDArray[np.float32], period: float, length: float) -> None:
        start = round((x - wide / 2 + _HALF) * _SCALE)
        columns = slice(start, start + max(1, round(wide * _SCALE)))
        painted = (np.arange(image.shape[0]) / _SCALE) % period < length
        share = np.clip(worn[painted, columns], 0.4, 0.95)
        image[painted, columns] = image[painted, columns] * (1 - share) + color * share

    dash = float(rng.choice([2.0, 4.0, 6.0]))
    line(0, 0.12, white, 8.0, dash)
    edge = rng.random()
    for side in (-1, 1):
        if edge < 0.5:
            for off in (0.3, 0.55):
                line(side * (plan.road - off), 0.08, yellow, _PERIOD, _PERIOD)
        elif edge < 0.8:
            line(side * (plan.road - 1.4), 0.12, white, 4.0, 2.0)
        drain = _between(image, side * (plan.road - 0.25) - 0.2, side * (plan.road - 0.25) + 0.2)
        at = int(rng.integers(40, 400))
        drain[at : at + 8] *= 0.4
