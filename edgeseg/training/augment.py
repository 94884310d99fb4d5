"""Random crops of labelled frames: scale, place, mirror and colour, decided by a seed alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.libraries import require

__all__ = ["Augmentation", "random_crop"]


@dataclass(frozen=True)
class Augmentation:
    """How a frame is varied.

    Attributes:
        scale: smallest and largest zoom; at 1 the whole frame is seen, as at inference.
        mirror: whether half of the crops are mirrored left to right.
        color: largest relative change of brightness, contrast and saturation.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    mirror: bool = True
    color: float = 0.3

    def __post_init__(self) -> None:
        low, high = self.scale
        if not (math.isfinite(high) and 0 < low <= high):
            raise UsageError(f"the scale of crops must be two numbers, 0 < smallest <= largest, but is {self.scale}")
        if not 0 <= self.color < 1:
            raise UsageError(f"the change of colour must be 0 or up to 1, but is {self.color}")


def random_crop(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    size: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
    ignore_index: int,
    whole: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One random view of a labelled frame.

    Args:
        image: (h, w, 3) uint8.
        labels: (h, w) uint8.
        size: (height, width) of the view.
        augmentation: what is varied.
        random: decides it.
        ignore_index: label of what lies outside the frame.
        whole: (height, width) of the frame at zoom 1, where the view is a part of it; None for the view's own.

    Returns:
        The view, (H, W, 3) uint8, and its labels, (H, W) uint8. Frames are resized as at inference: bilinearly, each
        axis for itself, without a low-pass filter.
    """
    zoom = math.exp(random.uniform(*np.log(augmentation.scale)))
    place = random.uniform(size=2)
    mirrored = augmentation.mirror and random.uniform() < 0.5
    height, width = size if whole is None else whole
    scaled = zoom * height, zoom * width
    view, truth = _warp(image, labels, scaled, size, (float(place[0]), float(place[1])), mirrored, ignore_index)
    return _recolor(view, augmentation.color, random), truth


def _warp(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    scaled: tuple[float, float],
    size: tuple[int, int],
    place: tuple[float, float],
    mirrored: bool,
    ignore_index: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    cv2: Any = require("cv2", "vary training frames")
    height, width = size
    down, right = scaled[0] / image.shape[0], scaled[1] / image.shape[1]
    # What the enlarged frame has beyond the view is cut off at a random place; what a reduced one lacks is border.
    top, left = place[0] * (height - scaled[0]), place[1] * (width - scaled[1])
    matrix = np.array([[right, 0, left + (right - 1) / 2], [0, down, top + (down - 1) / 2]])
    if mirrored:
        matrix[0] = -matrix[0]
        matrix[0, 2] += width - 1
    border = [int(v) for v in image.mean((0, 1))]
    # Without border the outermost half pixel must not be mixed with its colour: a resize repeats the edge there.
    filled = scaled[0] >= height and scaled[1] >= width
    outside = cv2.BORDER_REPLICATE if filled else cv2.BORDER_CONSTANT
    view = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=outside, borderValue=border
    )
    truth = cv2.warpAffine(labels, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=ignore_index)
    return view, truth


def _recolor(image: NDArray[np.uint8], most: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast and saturation by random factors, in this order."""
    if most == 0:
        return image
    brightness, contrast, saturation = (float(f) for f in random.uniform(1 - most, 1 + most, 3))
    grey = image.mean()
    # One affine map of the channels: v -> contrast (brightness v - grey) + grey, then away from each pixel's own grey.
    gain, offset = np.float32(contrast * brightness), np.float32(grey * (1 - contrast))
    values = image.astype(np.float32) * gain + offset
    pixel_grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = pixel_grey[..., None] + np.float32(saturation) * (values - pixel_grey[..., None])
    recolored: NDArray[np.uint8] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return recolored
