"""From the painted canvas to a camera's frame: haze, motion blur, lens, exposure, vignette, sensor noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeseg.libraries import require
from edgeseg.scenes.canvas import SAMPLES, Canvas, Color
from edgeseg.scenes.street import Plan, stream

__all__ = ["develop"]

_EXPOSURE = 0.012  # seconds that the shutter is open
_FIELD = 256  # side of the stored noise, pixels


def develop(canvas: Canvas, plan: Plan, number: int) -> NDArray[np.uint8]:
    """The frame that the camera gives.

    Args:
        canvas: painted, its fourth channel the haze.
        plan: the street.
        number: of the frame, which decides its noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cv2 = canvas.cv2
    height, width = canvas.camera.height // SAMPLES, canvas.camera.width // SAMPLES
    small = cv2.resize(canvas.colors, (width, height), interpolation=cv2.INTER_AREA)
    share = cv2.merge([small[:, :, 3]] * 3).astype(np.float32) * np.float32(1 / 255)
    image = small[:, :, :3].astype(np.float32)
    image += (np.asarray(plan.horizon, np.float32) * np.float32(0.96) - image) * share
    image = _moved(image, plan, canvas.camera.horizon / SAMPLES)
    sigma = plan.softness * height / 360
    image = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.2 else image
    image *= _lens(height, width, plan.vignette, plan.exposure, plan.warmth)
    # A shoulder: highlights run into white as on a sensor, and shadows keep some light.
    image = np.minimum(image, image * np.float32(0.45) + np.float32(190 * 0.55))
    image += _grain(plan, number, height, width)
    return np.asarray(cv2.convertScaleAbs(np.maximum(image, 0, out=image)), np.uint8)


def _moved(image: NDArray[np.float32], plan: Plan, horizon: float) -> NDArray[np.float32]:
    """Motion blur of a camera that goes forward: the mean with the picture as it is a moment later.

    A point at 12 m, about where the road fills the picture, moves outwards by speed x time / distance.
    """
    cv2 = require("cv2", "draw scenes")
    height, width = image.shape[:2]
    zoom = 1 + plan.speed * _EXPOSURE / 12
    centre = np.array([(width - 1) / 2, horizon])
    shift = centre * (1 - zoom)
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    later = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.addWeighted(image, 0.5, later, 0.5, 0), np.float32)


@lru_cache(maxsize=8)
def _lens(height: int, width: int, vignette: float, exposure: float, warmth: Color) -> NDArray[np.float32]:
    """(height, width, 3) factors."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    light = exposure * (1 - vignette * ((rows + columns) / 2) ** 1.5)
    return np.asarray(light[:, :, None] * np.asarray(warmth), np.float32)


@lru_cache(maxsize=2)
def _field() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((_FIELD, _FIELD, 3)).astype(np.float32)


def _grain(plan: Plan, number: int, height: int, width: int) -> NDArray[np.float32]:
    """(height, width, 3) noise: a stored field that repeats, from another corner in every frame."""
    down, along = stream(plan.seed, 3, number).integers(0, _FIELD, 2)
    rows = np.arange(int(down), int(down) + height) % _FIELD
    field = np.take(_field(), rows, 0) * np.float32(plan.grain)
    columns = np.arange(int(along), int(along) + width) % _FIELD
    return np.asarray(np.take(field, columns, 1), np.float32)
