"""Gaussian filtering in a feature space of a few dimensions, in time linear in the points: the permutohedral lattice.

Adams, Baek, Davis, *Fast High-Dimensional Filtering Using the Permutohedral Lattice*, Eurographics 2010; constants as
in the code of Kraehenbuehl and Koltun. Each point is spread over the d + 1 corners of the lattice's simplex around it,
the corners are blurred along the d + 1 axes, and each point reads its corners back. The result approximates
sum_j exp(-|f_i - f_j|**2 / 2) v_j up to a factor of about a half, which a normalization takes out. Only corners that
some point touches exist, so nothing is blurred across empty space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.kernels import run_compiled
from edgeseg.refine.probabilities import PURPOSE

__all__ = ["PermutohedralLattice"]

_MAXIMUM = 2**27
"""Corners that points may have in all; their indices are int32 and the table of them takes 16 times this at most."""


class PermutohedralLattice:
    """The lattice of one set of points; `filter` runs any number of values over it.

    Args:
        features: (N, d) float32, each in units of the kernel's standard deviation.

    Attributes:
        corners: (N, d + 1) int32, by point its corners' numbers, from 1; 0 stands for a corner that does not exist.
        weights: (N, d + 1) float32, by point its shares of them, whose sum is 1.
        neighbours: (d + 1, corners, 2) int32, by axis and corner the two next to it; 0 for none.
        vertices: number of corners.

    Raises:
        ShapeError: for another shape, type, values that are not finite, or too many points.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        if features.ndim != 2 or features.dtype != np.float32 or not features.size:
            raise ShapeError(
                f"features must be (points, dimensions) float32, but are {features.shape} {features.dtype}"
            )
        points, dimensions = features.shape
        if points * (dimensions + 1) > _MAXIMUM:
            raise ShapeError(f"{points} points are too many for one lattice; filter a smaller frame")
        if not np.isfinite(features).all() or np.abs(features).max() > 1e6:
            raise ShapeError("features must be finite and below a million; check the kernel's widths")
        slots = np.full(1 << int(2 * points * (dimensions + 1) - 1).bit_length(), -1, np.int32)
        keys = np.empty((points * (dimensions + 1), dimensions), np.int32)
        self.corners = np.empty((points, dimensions + 1), np.int32)
        self.weights = np.empty((points, dimensions + 1), np.float32)
        scale = np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt(np.arange(1, dimensions + 1) * np.arange(2, dimensions + 2))
        features = np.ascontiguousarray(features)
        self.vertices = int(run_compiled(PURPOSE, _place, features, scale, slots, keys, self.corners, self.weights))
        self.neighbours = np.zeros((dimensions + 1, self.vertices, 2), np.int32)
        run_compiled(PURPOSE, _connect, slots, keys[: self.vertices], self.neighbours)

    def filter(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        """Filter values of the points.

        Args:
            values: (N, C) float32.
            transposed: apply the transposed matrix, which blurs along the axes in the opposite order: where corners
                are missing, the order matters.

        Returns:
            (N, C) float32, a new array.

        Raises:
            ShapeError: for another number of points or type.
        """
        if values.ndim != 2 or len(values) != len(self.corners) or values.dtype != np.float32:
            raise ShapeError(
                f"values must be ({len(self.corners)}, channels) float32, but are {values.shape} {values.dtype}"
            )
        result = np.empty(values.shape, np.float32)
        # Row 0 stands for every corner that does not exist: it stays zero.
        grid = np.zeros((2, self.vertices + 1, values.shape[1]), np.float32)
        neighbours = self.neighbours[::-1] if transposed else self.neighbours
        arguments = (self.corners, self.weights, np.ascontiguousarray(neighbours))
        run_compiled(PURPOSE, _filter, np.ascontiguousarray(values), *arguments, grid[0], grid[1], result)
        return result


def _place(features, scale, slots, keys, corners, weights):  # type: ignore[no-untyped-def]
    """Find every point's corners and their weights, and number the corners; returns how many there are."""
    points, d = features.shape
    mask = len(slots) - 1
    count = 0
    elevated, remainder = np.empty(d + 1), np.empty(d + 1, np.int64)
    rank, share, key = np.empty(d + 1, np.int64), np.empty(d + 2), np.empty(d, np.int64)
    for n in range(points):
        # Onto the plane whose coordinates sum to zero.
        total = 0.0
        for j in range(d, 0, -1):
            value = features[n, j - 1] * scale[j - 1]
            elevated[j] = total - j * value
            total += value
        elevated[0] = total
        # The nearest corner whose coordinates are multiples of d + 1, and the order of what is left of each.
        excess = 0
        for i in range(d + 1):
            nearest = int(np.floor(elevated[i] / (d + 1) + 0.5))
            remainder[i] = nearest * (d + 1)
            excess += nearest
            rank[i] = 0
        for i in range(d):
            for j in range(i + 1, d + 1):
                if elevated[i] - remainder[i] < elevated[j] - remainder[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        for i in range(d + 1):
            rank[i] += excess
            if rank[i] < 0:
                rank[i] += d + 1
                remainder[i] += d + 1
            elif rank[i] > d:
                rank[i] -= d + 1
                remainder[i] -= d + 1
        for i in range(d + 2):
            share[i] = 0.0
        for i in range(d + 1):
            value = (elevated[i] - remainder[i]) / (d + 1)
            share[d - rank[i]] += value
            share[d - rank[i] + 1] -= value
        share[0] += 1.0 + share[d + 1]
        for corner in range(d + 1):
            code = 0
            for i in range(d):
                key[i] = remainder[i] + (corner if rank[i] <= d - corner else corner - (d + 1))
                code = ((code + key[i]) * 2531011) & 0x7FFFFFFF
            slot = (code ^ (code >> 15)) & mask
            while slots[slot] >= 0:
                same = True
                for i in range(d):
                    same = same and keys[slots[slot], i] == key[i]
                if same:
                    break
                slot = (slot + 1) & mask
            if slots[slot] < 0:
                slots[slot] = count
                for i in range(d):
                    keys[count, i] = key[i]
                count += 1
            corners[n, corner] = slots[slot] + 1
            weights[n, corner] = share[corner]
    return count


def _connect(slots, keys, neighbours):  # type: ignore[no-untyped-def]
    """Find both neighbours of every corner on every axis; 0 for one that does not exist, else its number plus one.

    Only the one behind is looked up: a corner is the one before it to the corner that it finds.
    """
    count, d = keys.shape
    mask = len(slots) - 1
    key = np.empty(d, np.int64)
    for axis in range(d + 1):
        for vertex in range(count):
            code = 0
            for i in range(d):
                key[i] = keys[vertex, i] + (-d if i == axis else 1)
                code = ((code + key[i]) * 2531011) & 0x7FFFFFFF
            slot = (code ^ (code >> 15)) & mask
            while slots[slot] >= 0:
                same = True
                for i in range(d):
                    same = same and keys[slots[slot], i] == key[i]
                if same:
                    neighbours[axis, vertex, 1] = slots[slot] + 1
                    neighbours[axis, slots[slot], 0] = vertex + 1
                    break
                slot = (slot + 1) & mask


def _filter(values, corners, weights, neighbours, grid, other, result):  # type: ignore[no-untyped-def]
    """Spread, blur by (1/2, 1, 1/2) on every axis, and read back."""
    points, channels = values.shape
    axes, count, _ = neighbours.shape
    for n in range(points):
        for k in range(axes):
            corner, weight = corners[n, k], weights[n, k]
            for c in range(channels):
                grid[corner, c] += weight * values[n, c]
    half = np.float32(0.5)
    for axis in range(axes):
        for vertex in range(count):
            before, after = neighbours[axis, vertex, 0], neighbours[axis, vertex, 1]
            for c in range(channels):
                other[vertex + 1, c] = grid[vertex + 1, c] + half * (grid[before, c] + grid[after, c])
        grid, other = other, grid
    gain = np.float32(1.0 / (1.0 + 2.0 ** (1 - axes)))
    for n in range(points):
        for c in range(channels):
            result[n, c] = 0
        for k in range(axes):
            corner, weight = corners[n, k], weights[n, k] * gain
            for c in range(channels):
                result[n, c] += weight * grid[corner, c]
