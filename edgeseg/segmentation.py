"""The result for one frame: a class map, and what is drawn or counted from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError, UsageError
from edgeseg.frame import lies_on_gpu
from edgeseg.labels import LabelSet
from edgeseg.libraries import require

__all__ = ["Segmentation", "Timing"]

_STRIPE = 1 << 20
"""Pixels that are drawn or counted at once: what large images need on the way stays small, and in the cache."""


@dataclass(frozen=True)
class Timing:
    """Time of one frame by stage, in ms, measured on the thread that ran the stage.

    Attributes:
        decode: wait for the source to give the frame; 0 where the caller gave it.
        preprocess: check and resize.
        infer: the engine, with the wait for a free one where several frames are in flight.
        postprocess: logits to the class map of the frame.
        total: from the frame's arrival to its class map, without `decode`.
    """

    decode: float
    preprocess: float
    infer: float
    postprocess: float
    total: float


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the network says of one frame.

    Attributes:
        class_map: (H, W) uint8 class index by pixel, of the frame's size; an array, or the tensor of the caller's in
            the GPU's memory that was to be written, of which only a copy in the processor's can be drawn or counted.
        labels: names and colours of the classes.
        timing: time by stage.
        frame_number: position in the stream, from 0.
        name: name of the frame where its source has one.
    """

    class_map: NDArray[np.uint8]
    labels: LabelSet
    timing: Timing
    frame_number: int = 0
    name: str = ""

    def colorize(self) -> NDArray[np.uint8]:
        """The class map in the label set's colours, (H, W, 3) uint8 RGB."""
        colored = np.empty((*self.class_map.shape, 3), np.uint8)
        for rows in self._stripes():
            colored[rows] = self._colorized(rows)
        return colored

    def overlay(self, frame: NDArray[Any], alpha: float = 0.5) -> NDArray[np.uint8]:
        """The colours over the frame.

        Args:
            frame: (H, W, 3) uint8 RGB of the class map's size.
            alpha: share of the colour, 0..1.

        Returns:
            (H, W, 3) uint8 RGB, a new array.

        Raises:
            ShapeError: for another shape or type of frame.
            UsageError: for a share outside 0..1.
        """
        if frame.shape != (*self.class_map.shape, 3) or frame.dtype != np.uint8:
            expected = (*self.class_map.shape, 3)
            raise ShapeError(
                f"overlay needs the segmented frame, {expected} uint8, but got {frame.shape} {frame.dtype}; "
                "give the frame that this result came from"
            )
        if not 0 <= alpha <= 1:
            raise UsageError(f"alpha is the share of colour and must be 0..1, but is {alpha}")
        cv2 = require("cv2", "draw overlays")
        drawn = np.empty(frame.shape, np.uint8)
        for rows in self._stripes():
            part = np.ascontiguousarray(frame[rows])
            cv2.addWeighted(part, 1 - alpha, self._colorized(rows), alpha, 0, dst=drawn[rows])
        return drawn

    def areas(self, spacing: tuple[float, float] | None = None) -> dict[str, float]:
        """The area of every class by name; classes that do not occur have 0.

        Args:
            spacing: distance of two pixels of the frame, (down, across), in a unit of length such as mm; None for
                shares.

        Returns:
            Areas in the square of that unit: the number of pixels times what one covers. Without a spacing the share of
            the pixels, 0..1.

        Raises:
            UsageError: for a spacing that is not two numbers above 0.
        """
        if spacing is not None and not (len(spacing) == 2 and all(math.isfinite(d) and d > 0 for d in spacing)):
            raise UsageError(f"spacing must be two distances above 0, down and across, but is {spacing}")
        counts = np.zeros(256, np.int64)
        for rows in self._stripes():
            counts += np.bincount(self.class_map[rows].ravel(), minlength=256)
        pixels = {name: int(n) for name, n in zip(self.labels.names, counts, strict=False)}
        if spacing is None:
            return {name: n / self.class_map.size for name, n in pixels.items()}
        return {name: n * float(spacing[0]) * float(spacing[1]) for name, n in pixels.items()}

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a class is, (H, W) bool.

        Raises:
            LabelError: for an unknown class, with the nearest spelling.
        """
        self._require_processor()
        found: NDArray[np.bool_] = self.class_map == self.labels.index(name)
        return found

    def _stripes(self) -> Iterator[slice]:
        """Rows of the frame that are worked on at once."""
        self._require_processor()
        height, width = self.class_map.shape
        count = max(1, _STRIPE // width)
        return (slice(top, top + count) for top in range(0, height, count))

    def _require_processor(self) -> None:
        if lies_on_gpu(self.class_map):
            raise ShapeError(
                "the class map lies in a GPU's memory, as was asked for; draw and count a copy in the processor's: "
                "dataclasses.replace(result, class_map=result.class_map.cpu().numpy()) with torch"
            )

    def _colorized(self, rows: slice) -> NDArray[np.uint8]:
        cv2 = require("cv2", "draw class maps")
        table = self.labels.colors()[:, None, :]
        colored: NDArray[np.uint8] = cv2.LUT(cv2.merge([self.class_map[rows]] * 3), table)
        return colored
