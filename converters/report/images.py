"""Frames and class maps as data URIs, small enough for a page that carries all of them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OutputError
from edgeseg.libraries import require

__all__ = ["MAX_WIDTH", "difference_uri", "map_uri", "photo_uri"]

MAX_WIDTH = 480
"""Width in pixels to which wider images are reduced."""

_JPEG_QUALITY = 82


def photo_uri(image: NDArray[np.uint8]) -> str:
    """A (H, W, 3) uint8 RGB photo as a JPEG data URI."""
    cv2 = _cv2()
    return _encode(_reduced(image, cv2.INTER_AREA), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def map_uri(class_map: NDArray[np.uint8], colors: NDArray[np.uint8]) -> str:
    """A (H, W) uint8 class map in its colours, (256, 3) uint8 RGB, as a PNG data URI."""
    cv2 = _cv2()
    return _encode(colors[_reduced(class_map, cv2.INTER_NEAREST)], ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def difference_uri(
    frame: NDArray[np.uint8], float_map: NDArray[np.uint8], int8_map: NDArray[np.uint8], colors: NDArray[np.uint8]
) -> str:
    """Where two class maps differ, the INT8 class's colour on a faded grey frame, as a PNG data URI.

    Args:
        frame: (H, W, 3) uint8 RGB.
        float_map, int8_map: (H, W) uint8 class indices.
        colors: (256, 3) uint8 RGB by class index.
    """
    cv2 = _cv2()
    # Rec. 601 luma, faded to 190..250: brighter than the colours of the usual palettes, so that these stand out. Few
    # levels, because PNG is what keeps changed pixels sharp and few levels keep it small.
    luma = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    faded = 190 + 6 * np.rint(luma * (10 / 255)).astype(np.uint8)
    drawn = np.where((float_map != int8_map)[..., None], colors[int8_map], faded[..., None]).astype(np.uint8)
    return _encode(_reduced(drawn, cv2.INTER_AREA), ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _reduced(image: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    """The image, at most `MAX_WIDTH` pixels wide."""
    height, width = image.shape[:2]
    if width <= MAX_WIDTH:
        return image
    size = (MAX_WIDTH, max(1, round(height * MAX_WIDTH / width)))
    reduced: NDArray[np.uint8] = _cv2().resize(image, size, interpolation=interpolation)
    return reduced


def _encode(image: NDArray[np.uint8], suffix: str, parameters: list[int]) -> str:
    """Encode a (H, W, 3) uint8 RGB image."""
    ok, data = _cv2().imencode(suffix, np.ascontiguousarray(image[:, :, ::-1]), parameters)
    if not ok:
        raise OutputError(f"OpenCV did not encode an image of {image.shape} for the report as {suffix}")
    kind = {".jpg": "jpeg", ".png": "png"}[suffix]
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def _cv2() -> Any:
    return require("cv2", "draw the report")
