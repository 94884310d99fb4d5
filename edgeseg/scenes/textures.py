"""Surfaces made of noise and simple shapes: asphalt, slabs, walls, foliage, clouds. Same arguments, same pixels."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from edgeseg.libraries import require

__all__ = ["bare_tree", "clouds", "conifer", "foliage", "noise", "speckle"]

Image = NDArray[np.uint8]


def noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> NDArray[np.float32]:
    """(height, width) smooth noise of mean 0 and deviation about 1 that repeats at its edges.

    Args:
        rng: where the randomness comes from.
        height, width: pixels.
        cells: grid points along a side, by octave; each octave weighs the same.
    """
    cv2 = require("cv2", "draw scenes")
    total = np.zeros((height, width), np.float32)
    for count in cells:
        grid = np.pad(rng.standard_normal((count, count)).astype(np.float32), 2, mode="wrap")
        step_y, step_x = height / count, width / count
        matrix = np.array([[step_x, 0, -2 * step_x], [0, step_y, -2 * step_y]])
        total += cv2.warpAffine(grid, matrix, (width, height), flags=cv2.INTER_CUBIC)
    return np.asarray(total / np.sqrt(len(cells)) * 1.3, np.float32)


def speckle(rng: np.random.Generator, height: int, width: int, blur: float) -> NDArray[np.float32]:
    """(height, width) fine-grained noise of mean 0 and deviation 1, the grains `blur` pixels wide."""
    cv2 = require("cv2", "draw scenes")
    grains = cv2.GaussianBlur(
        rng.standard_normal((height, width)).astype(np.float32), (0, 0), blur, borderType=cv2.BORDER_REFLECT
    )
    return np.asarray(grains / grains.std(), np.float32)


@lru_cache(maxsize=16)
def clouds(seed: int, cover: float, zenith: tuple[int, int, int], horizon: tuple[int, int, int]) -> Image:
    """(256, 512, 4) sky, its last row the horizon.

    Args:
        seed: of the clouds' shapes.
        cover: share of the sky with clouds, 0..1.
        zenith, horizon: colours of the clear sky.
    """
    rng = np.random.default_rng([seed, 101])
    height, width = 256, 512
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    sky = np.asarray(horizon, np.float32) * (1 - up**0.7) + np.asarray(zenith, np.float32) * up**0.7
    field = noise(rng, height, width, (4, 7)) + 0.35 * noise(rng, height, width, (15, 29))
    edge = np.quantile(field, 1 - cover) if 0 < cover < 1 else (-9.0 if cover else 9.0)
    share = np.clip((field - edge) * 0.7, 0, 1)[:, :, None] * (0.55 + 0.4 * up)
    bright = 238 - 26 * np.clip(field - edge - 0.8, 0, 2)[:, :, None]
    image = sky * (1 - share) + bright * share
    return np.dstack([np.clip(image, 0, 255), np.zeros((height, width, 1))]).astype(np.uint8)


@lru_cache(maxsize=32)
def foliage(seed: int, color: tuple[int, int, int], light: float) -> Image:
    """(160, 160, 4) crown of leaves; the fourth channel says where it is.

    Args:
        seed: of its shape.
        color: of a lit leaf.
        light: x of the sun, -1 from the left to 1 from the right.
    """
    cv2 = require("cv2", "draw scenes")
    rng = np.random.default_rng([seed, 202])
    size = 160
    shape = np.zeros((size, size), np.float32)
    glow = np.zeros((size, size), np.float32)
    for _ in range(26):
        angle, reach = rng.uniform(0, 2 * pi), 46 * rng.random() ** 0.6
        x, y, radius = 80 + reach * cos(angle), 80 + reach * sin(angle), rng.uniform(14, 27)
        cv2.circle(shape, (int(x), int(y)), int(radius), 1, -1)
        cv2.circle(glow, (int(x + light * radius / 3), int(y - radius / 3)), int(radius * 0.7), rng.uniform(0.4, 1), -1)
    leaves = speckle(rng, size, size, 1.6)
    edge = cv2.GaussianBlur(shape, (0, 0), 4) + 0.16 * leaves
    lit = 0.42 + 0.4 * cv2.GaussianBlur(glow, (0, 0), 4) + 0.16 * leaves + 0.1 * np.linspace(1, -1, size)[:, None]
    image = np.asarray(color, np.float32) * lit[:, :, None]
    alpha = np.where((edge > 0.5) & (leaves + 3 * edge > 0.9), 255, 0)
    return np.dstack([np.clip(image, 8, 255), alpha]).astype(np.uint8)


@lru_cache(maxsize=32)
def conifer(seed: int, color: tuple[int, int, int], light: float) -> Image:
    """(160, 160, 4) pointed evergreen; see `foliage`."""
    rng = np.random.default_rng([seed, 303])
    size = 160
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    leaves = speckle(rng, size, size, 1.5)
    half = 10 + 62 * (rows / size) ** 0.7 + 5 * leaves
    off = (columns - size / 2) / half
    lit = 0.55 + 0.25 * light * off + 0.18 * leaves
    alpha = np.where((np.abs(off) < 1) & (rows > 3), 255, 0)
    return np.dstack([np.clip(np.asarray(color, np.float32) * lit[:, :, None], 8, 255), alpha]).astype(np.uint8)


@lru_cache(maxsize=32)
def bare_tree(seed: int, color: tuple[int, int, int], light: float) -> Image:
    """(320, 320, 4) tree in winter, from the ground up; see `foliage`."""
    cv2 = require("cv2", "draw scenes")
    rng = np.random.default_rng([seed, 404])
    size = 320
    alpha = np.zeros((size, size), np.uint8)
    waiting = [(size / 2, size - 1.0, -pi / 2, size * 0.26, 13.0)]
    while waiting:
        x, y, angle, length, thickness = waiting.pop()
        end = x + length * cos(angle), y + length * sin(angle)
        cv2.line(alpha, (int(x), int(y)), (int(end[0]), int(end[1])), 255, max(1, round(thickness)))
        if length > 7:
            for side in (-1, 0, 1) if length > 20 else (-1, 1):
                turn = angle + side * rng.uniform(0.25, 0.65) + rng.normal(0, 0.12) - 0.06 * cos(angle)
                waiting.append((*end, turn, length * rng.uniform(0.62, 0.8), thickness * 0.62))
    grain = 0.75 + 0.15 * speckle(rng, size, size, 1.2) + 0.15 * light
    return np.dstack([np.clip(np.asarray(color, np.float32) * grain[:, :, None], 8, 255), alpha]).astype(np.uint8)
