"""From logits to the class map of a frame: where each pixel samples the logits, and the NumPy reference of the job.

The class map is defined at a size of its own, the network's input size or a multiple of it: logits are upsampled
bilinearly (ONNX Resize, mode "linear") and the class is the first largest channel. A frame of another size takes the
nearest sample of that map, the one at floor(i * map / frame). Both are separable samplings, so they are composed here
and done at the needed pixels only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.manifest import Coordinates

__all__ = [
    "Sampling",
    "Upsampling",
    "frame_logits",
    "nearest_class_map",
    "reference_class_map",
    "sampling",
    "upsampling",
]

_BAND = 16
"""Rows that `reference_class_map` does at once."""


@dataclass(frozen=True)
class Sampling:
    """How the pixels of one axis of a frame sample the logits of that axis.

    Attributes:
        nearest: index by pixel on the class map's axis, int32, never decreasing.
        lower, upper: indices by pixel of the two logits that surround it, int32, never decreasing; `upper` is
            min(lower + 1, size - 1), or `lower` itself where nothing is interpolated.
        weight: share of `upper` by pixel, float32 in 0..1.
        size: number of logits on the axis.
    """

    nearest: NDArray[np.int32]
    lower: NDArray[np.int32]
    upper: NDArray[np.int32]
    weight: NDArray[np.float32]
    size: int

    def part(self, start: int, stop: int) -> Sampling:
        """The same for some pixels of the axis."""
        some = slice(start, stop)
        return Sampling(self.nearest[some], self.lower[some], self.upper[some], self.weight[some], self.size)


@dataclass(frozen=True)
class Upsampling:
    """The two axes of a frame, and whether logits are interpolated at all."""

    rows: Sampling
    columns: Sampling
    interpolated: bool


def sampling(frame_size: int, map_size: int, logits_size: int, coordinates: Coordinates | None) -> Sampling:
    """Compose the nearest sampling of the class map with the bilinear upsampling of its logits.

    Args:
        frame_size: pixels of the frame's axis.
        map_size: pixels of the class map's axis.
        logits_size: logits on that axis.
        coordinates: rule of ONNX Resize (coordinate_transformation_mode, opset 17); None where logits have the
            class map's size.

    Raises:
        ShapeError: for logits of another size than the class map's without a rule.
    """
    nearest = np.arange(frame_size, dtype=np.int64) * map_size // frame_size
    if coordinates is None:
        if logits_size != map_size:
            raise ShapeError(
                f"{logits_size} logits on an axis of {map_size} pixels need a coordinate rule, but got none"
            )
        lower = upper = nearest
        weight = np.zeros(frame_size)
    else:
        source = np.clip(_source(nearest, map_size, logits_size, coordinates), 0, logits_size - 1)
        lower = source.astype(np.int64)
        upper = np.minimum(lower + 1, logits_size - 1)
        weight = source - lower
    arrays = (nearest.astype(np.int32), lower.astype(np.int32), upper.astype(np.int32), weight.astype(np.float32))
    for array in arrays:
        array.flags.writeable = False
    return Sampling(*arrays, logits_size)


def _source(pixel: NDArray[np.int64], large: int, small: int, coordinates: Coordinates) -> NDArray[np.float64]:
    """Position among `small` logits of each pixel of an axis of `large`, by the formulas of ONNX Resize."""
    position: NDArray[np.float64] = pixel.astype(np.float64)
    if large == 1 and coordinates in ("align_corners", "pytorch_half_pixel"):
        position[:] = 0
    elif coordinates == "align_corners":
        position *= (small - 1) / (large - 1)
    elif coordinates == "asymmetric":
        position *= small / large
    else:
        position += 0.5
        position *= small / large
        position -= 0.5
    return position


@lru_cache(maxsize=16)
def upsampling(
    frame: tuple[int, int], class_map: tuple[int, int], logits: tuple[int, int], coordinates: Coordinates | None
) -> Upsampling:
    """Both axes, remembered by size; sizes are (height, width)."""
    rows, columns = (sampling(f, m, s, coordinates) for f, m, s in zip(frame, class_map, logits, strict=True))
    return Upsampling(rows, columns, coordinates is not None)


def frame_logits(logits: NDArray[np.float32], rows: Sampling, columns: Sampling) -> NDArray[np.float32]:
    """The logits of every pixel of a frame, whose largest channel is the pixel's class.

    Each interpolation is a * (1 - w) + b * w in float32, along the rows' axis first.

    Args:
        logits: (C, h, w) float32.
        rows, columns: samplings of the two axes.

    Returns:
        (C, H, W) float32, a new array.
    """
    height, width = rows.weight[None, :, None], columns.weight[None, None, :]
    one = np.float32(1)
    lines = logits[:, rows.lower] * (one - height) + logits[:, rows.upper] * height
    values: NDArray[np.float32] = lines[:, :, columns.lower] * (one - width) + lines[:, :, columns.upper] * width
    return values


def reference_class_map(logits: NDArray[np.float32], rows: Sampling, columns: Sampling) -> NDArray[np.uint8]:
    """The class of every pixel of a frame, by plain NumPy: what every fused kernel must equal.

    Some rows at a time, whose logits stay in the processor's cache.

    Args:
        logits: (C, h, w) float32.
        rows, columns: samplings of the two axes.

    Returns:
        (H, W) uint8; of equal values the first channel of `frame_logits` wins.
    """
    classes = np.empty((len(rows.lower), len(columns.lower)), np.uint8)
    for start in range(0, len(classes), _BAND):
        classes[start : start + _BAND] = frame_logits(logits, rows.part(start, start + _BAND), columns).argmax(axis=0)
    return classes


def nearest_class_map(
    class_map: NDArray[np.uint8], rows: Sampling, columns: Sampling, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Bring a class map (h, w) uint8 at its own size to the frame's size.

    Returns:
        (H, W) uint8: `out` where it is given, otherwise a new array.
    """
    size = len(rows.nearest), len(columns.nearest)
    result = np.empty(size, np.uint8) if out is None else out
    if class_map.shape == size:
        np.copyto(result, class_map)
        return result
    for y, row in enumerate(rows.nearest):
        if y and row == rows.nearest[y - 1]:
            result[y] = result[y - 1]
        else:
            # Indices are in range; with mode "raise" NumPy would gather into an array of its own first.
            class_map[row].take(columns.nearest, out=result[y], mode="clip")
    return result
