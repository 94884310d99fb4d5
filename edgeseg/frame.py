"""A camera's frame as the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.libraries import require

__all__ = ["fit_frame"]


def fit_frame(frame: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    """Bring a frame to the network's size; colour order, normalisation and layout are the graph's work.

    Args:
        frame: (H, W, 3) uint8 RGB of any size; another size is resized bilinearly.
        height, width: the network's size in pixels.

    Returns:
        (1, height, width, 3) uint8 RGB, contiguous; the frame itself where nothing had to be done.

    Raises:
        ShapeError: for another shape or type.
    """
    if not isinstance(frame, np.ndarray):
        raise ShapeError(f"frame must be a (H, W, 3) uint8 array, but is {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ShapeError(f"frame must be (H, W, 3) uint8 RGB, but got {frame.shape} {frame.dtype}; {_cure(frame)}")
    if frame.shape[:2] != (height, width):
        cv2 = require("cv2", "resize frames")
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(frame)[None]


def _cure(frame: NDArray[Any]) -> str:
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "drop the alpha channel with frame[:, :, :3]"
    if frame.ndim == 2:
        return "repeat a grey frame with np.repeat(frame[:, :, None], 3, axis=2)"
    if frame.ndim == 4:
        return "give one frame at a time"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return "turn planes into pixels with frame.transpose(1, 2, 0)"
    return "convert it to 8 bits a channel first"
