"""Segmentation without a network, from grey levels alone: Otsu's threshold and split-and-merge over a quadtree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError, UsageError
from edgeseg.libraries import require

__all__ = ["REST", "Quadtree", "otsu"]

REST = 255
"""Value of the regions beyond the 255 largest, which an 8-bit class map cannot number."""


def otsu(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Divide a frame into dark and bright at the grey level that separates both best.

    Otsu, *A Threshold Selection Method from Gray-Level Histograms*, 1979; the search is OpenCV's.

    Args:
        frame: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) uint8: 1 where the grey level lies above the threshold, else 0; and the threshold, 0..255.

    Raises:
        ShapeError: for another shape or type.
    """
    cv2: Any = require("cv2", "threshold frames")
    level, bright = cv2.threshold(_grey(frame), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return bright, int(level)


@dataclass(frozen=True)
class Quadtree:
    """Split and merge: quarters of the frame are split until their grey levels are alike, then neighbours that are
    alike are merged, the most similar first.

    Horowitz and Pavlidis, *Picture Segmentation by a Tree Traversal Algorithm*, 1976.

    Attributes:
        deviation: standard deviation of a block's grey levels, 0..255, above which it is split.
        difference: of the mean grey levels of two regions, 0..255, up to which they are merged.
        smallest: side of a block in pixels that is not split.
    """

    deviation: float = 12.0
    difference: float = 20.0
    smallest: int = 8

    def __post_init__(self) -> None:
        for name in ("deviation", "difference"):
            if not 0 <= getattr(self, name) <= 255:
                raise UsageError(f"{name} is in grey levels and must be 0..255, but is {getattr(self, name)}")
        if self.smallest < 1:
            raise UsageError(f"smallest is a side in pixels and must be at least 1, but is {self.smallest}")

    def __call__(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """Find the regions of a frame.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8: regions by area, 0 for the largest, REST for all beyond the first 255; and their number.

        Raises:
            ShapeError: for another shape or type.
        """
        grey = _grey(frame)
        blocks = self._split(grey)
        parents = self._merge(blocks, grey)
        regions = parents[blocks]
        _, numbers, areas = np.unique(regions, return_inverse=True, return_counts=True)
        place = np.empty(len(areas), np.int64)
        place[np.argsort(-areas, kind="stable")] = np.arange(len(areas))
        return np.minimum(place, REST).astype(np.uint8)[numbers.reshape(grey.shape)], len(areas)

    def _split(self, grey: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The number of its block by pixel, (H, W) int32."""
        sums, squares = (_integral(grey.astype(np.int64) ** power) for power in (1, 2))
        blocks = np.empty(grey.shape, np.int32)
        waiting, count = [(0, 0, *grey.shape)], 0
        while waiting:
            y, x, bottom, right = waiting.pop()
            area = (bottom - y) * (right - x)
            mean = _inside(sums, y, x, bottom, right) / area
            variance = _inside(squares, y, x, bottom, right) / area - mean * mean
            tall, wide = bottom - y > self.smallest, right - x > self.smallest
            if variance <= self.deviation**2 or not (tall or wide):
                blocks[y:bottom, x:right] = count
                count += 1
                continue
            rows = [(y, (y + bottom) // 2), ((y + bottom) // 2, bottom)] if tall else [(y, bottom)]
            columns = [(x, (x + right) // 2), ((x + right) // 2, right)] if wide else [(x, right)]
            waiting += [(top, left, low, end) for top, low in rows for left, end in columns]
        return blocks

    def _merge(self, blocks: NDArray[np.int32], grey: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The region of every block, (blocks,) int64, each named by one of its blocks."""
        areas = np.bincount(blocks.ravel()).astype(np.float64)
        totals = np.bincount(blocks.ravel(), weights=grey.ravel().astype(np.float64))
        sides = ((blocks[:, :-1], blocks[:, 1:]), (blocks[:-1], blocks[1:]))
        pairs = np.concatenate([np.stack((a[a != b], b[a != b]), 1) for a, b in sides])
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        means = totals / areas
        order = np.argsort(np.abs(means[pairs[:, 0]] - means[pairs[:, 1]]), kind="stable")
        parents = list(range(len(areas)))

        def root(block: int) -> int:
            while parents[block] != block:
                parents[block] = parents[parents[block]]
                block = parents[block]
            return block

        for first, second in pairs[order].tolist():
            a, b = root(first), root(second)
            # The means of what has been merged by now, not of the two blocks.
            if a != b and abs(totals[a] / areas[a] - totals[b] / areas[b]) <= self.difference:
                parents[b] = a
                totals[a] += totals[b]
                areas[a] += areas[b]
        return np.array([root(block) for block in range(len(parents))], np.int64)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ShapeError(f"a frame must be (H, W, 3) uint8 RGB, but is {frame.shape} {frame.dtype}")
    cv2: Any = require("cv2", "turn frames grey")
    grey: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return grey


def _integral(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over all pixels above and on the left, (H + 1, W + 1)."""
    sums: NDArray[np.int64] = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return sums


def _inside(integral: NDArray[np.int64], y: int, x: int, bottom: int, right: int) -> float:
    return float(integral[bottom, right] - integral[y, right] - integral[bottom, x] + integral[y, x])
