"""Gaussian kernels of a dense CRF as linear filters over a frame's pixels: exact ones, and the lattice."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.libraries import require
from edgeseg.refine.lattice import PermutohedralLattice

__all__ = [
    "EXACT_PIXELS",
    "AllPairs",
    "Filter",
    "Normalization",
    "Normalized",
    "Separable",
    "appearance_features",
    "lattice_filter",
]

Normalization = Literal["symmetric", "pixel", "none"]

EXACT_PIXELS = 16384
"""Pixels of the largest frame that `AllPairs` takes; its time grows with the square of them."""

_BLOCK = 1024


class Filter(Protocol):
    """A kernel matrix K: gives sum_j K(i, j) v_j, the pixel itself included, or sum_j K(j, i) v_j where transposed."""

    def __call__(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        """(N, C) float32, pixels in rows, to (N, C) float32."""
        ...


def appearance_features(frame: NDArray[np.uint8], position: float, colour: float) -> NDArray[np.float32]:
    """Position and colour of every pixel, in standard deviations of the kernel.

    Args:
        frame: (H, W, 3) uint8 RGB.
        position: standard deviation in pixels (theta_alpha).
        colour: standard deviation in steps of 0..255 (theta_beta).

    Returns:
        (H * W, 5) float32: x, y, red, green, blue.
    """
    height, width = frame.shape[:2]
    features = np.empty((height, width, 5), np.float32)
    features[..., 0] = np.arange(width, dtype=np.float32) / position
    features[..., 1] = np.arange(height, dtype=np.float32)[:, None] / position
    features[..., 2:] = frame / np.float32(colour)
    return features.reshape(-1, 5)


class AllPairs:
    """The kernel exp(-|f_i - f_j|**2 / 2) over all pairs of pixels, for small frames.

    Args:
        features: (N, d) float32.

    Raises:
        ShapeError: for more than EXACT_PIXELS pixels.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        if len(features) > EXACT_PIXELS:
            raise ShapeError(
                f"exact filtering takes frames of at most {EXACT_PIXELS} pixels, but this one has {len(features)}; "
                "use the lattice"
            )
        self._features = features.astype(np.float64)

    def __call__(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        """Filter (N, C) float32; the kernel is its own transposed."""
        del transposed
        features, result = self._features, np.empty(values.shape, np.float32)
        squares = (features**2).sum(axis=1)
        for start in range(0, len(features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            distance = squares[rows, None] + squares[None] - 2 * features[rows] @ features.T
            result[rows] = np.exp(-0.5 * np.maximum(distance, 0)) @ values
        return result


class Separable:
    """The kernel exp(-|p_i - p_j|**2 / (2 s**2)) over positions, row by row and column by column.

    Exact to float32: it is cut where it falls below 1e-8, and what lies outside the frame counts nothing.

    Args:
        height, width: of the frame.
        deviation: s, in pixels (theta_gamma).
    """

    def __init__(self, height: int, width: int, deviation: float) -> None:
        self._size = height, width
        radius = int(np.ceil(deviation * np.sqrt(2 * np.log(1e8))))
        taps: list[Any] = []
        for size in (height, width):
            reach = min(radius, size - 1)
            taps.append(np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2))
        self._rows, self._columns = taps

    def __call__(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        """Filter (N, C) float32; the kernel is its own transposed."""
        del transposed
        cv2: Any = require("cv2", "filter class probabilities")
        planes = np.ascontiguousarray(values.T).reshape(-1, *self._size)
        done = [
            cv2.sepFilter2D(plane, cv2.CV_32F, self._columns, self._rows, borderType=cv2.BORDER_CONSTANT)
            for plane in planes
        ]
        result: NDArray[np.float32] = np.ascontiguousarray(np.stack(done).reshape(len(planes), -1).T)
        return result


def lattice_filter(features: NDArray[np.float32]) -> Filter:
    """The kernel of `AllPairs`, approximated by a permutohedral lattice in linear time."""
    return PermutohedralLattice(features).filter


class Normalized:
    """A filter with its rows, and for "symmetric" its columns too, divided by (the roots of) their sums.

    Args:
        kernel: the filter K, of row sums D.
        pixels: number of points.
        normalization: "symmetric" D**-1/2 K D**-1/2, "pixel" D**-1 K, or "none".
    """

    def __init__(self, kernel: Filter, pixels: int, normalization: Normalization) -> None:
        self._kernel = kernel
        self._before: NDArray[np.float32] | None = None
        self._after: NDArray[np.float32] | None = None
        if normalization != "none":
            # The code of Kraehenbuehl and Koltun adds the same to a sum that may be 0 in the lattice.
            sums = kernel(np.ones((pixels, 1), np.float32)) + np.float32(1e-20)
            self._after = 1 / np.sqrt(sums) if normalization == "symmetric" else 1 / sums
            self._before = self._after if normalization == "symmetric" else None

    def __call__(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        """Filter (N, C) float32."""
        before, after = (self._after, self._before) if transposed else (self._before, self._after)
        result = self._kernel(values if before is None else values * before, transposed=transposed)
        if after is not None:
            result *= after
        return result
