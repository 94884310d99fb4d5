"""Colours over frames in one pass: what a blend gives for each class, channel and value is worked out beforehand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.kernels import run_compiled
from edgeseg.libraries import require

__all__ = ["blend", "blend_table", "warm_up"]

_PURPOSE = "draw results"


def blend_table(colors: NDArray[np.uint8], drawn: NDArray[np.bool_], alpha: float) -> NDArray[np.uint8]:
    """What becomes of every value of every channel under every class.

    Args:
        colors: (256, 3) uint8 RGB by class.
        drawn: (256,) bool, the classes whose colour is drawn; the others leave a frame as it is.
        alpha: share of the colour, 0..1.

    Returns:
        (256, 3, 256) uint8 by class, channel and value: OpenCV's addWeighted, which rounds halves to even.
    """
    cv2 = require("cv2", _PURPOSE)
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 3, 256))
    tints = np.broadcast_to(colors[:, :, None], (256, 3, 256))
    table: NDArray[np.uint8] = cv2.addWeighted(
        np.ascontiguousarray(values), 1 - alpha, np.ascontiguousarray(tints), alpha, 0
    )
    table[~drawn] = np.arange(256, dtype=np.uint8)
    return table


def blend(image: NDArray[np.uint8], class_map: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a class map over a frame.

    Args:
        image: (H, W, 3) uint8.
        class_map: (H, W) uint8 class by pixel.
        table: of `blend_table`.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ShapeError: for a class map of another size than the frame's.
    """
    # Compiled loops look at no bounds.
    if image.shape != (*class_map.shape, 3):
        raise ShapeError(
            f"a class map is drawn over a frame of its size, but got {class_map.shape} for a frame {image.shape}; "
            "bring it to the frame's size"
        )
    picture = np.empty(image.shape, np.uint8)
    flat = np.ascontiguousarray(image).reshape(-1), np.ascontiguousarray(class_map).reshape(-1)
    run_compiled(_PURPOSE, _look_up, *flat, table.reshape(256, -1), picture.reshape(-1))
    return picture


def warm_up() -> None:
    """Compile the kernel, or load it from the cache, before the first frame waits for it."""
    blend(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((256, 3, 256), np.uint8))


def _look_up(image, class_map, table, picture):  # type: ignore[no-untyped-def]
    """The picture from a table of 768 values by class; everything flat."""
    green, blue = np.uint64(256), np.uint64(512)  # a signed index would be tested for being negative
    for pixel in range(class_map.shape[0]):
        values = table[class_map[pixel]]
        at = 3 * pixel
        picture[at] = values[image[at]]
        picture[at + 1] = values[green + np.uint64(image[at + 1])]
        picture[at + 2] = values[blue + np.uint64(image[at + 2])]
