"""The result for one frame: a class map, and what is drawn or counted from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.libraries import require

__all__ = ["Segmentation", "Timing"]


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
        class_map: (H, W) uint8 class index by pixel, of the frame's size.
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
        cv2 = require("cv2", "draw class maps")
        table = self.labels.colors()[:, None, :]
        colored: NDArray[np.uint8] = cv2.LUT(cv2.merge([self.class_map] * 3), table)
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
        drawn: NDArray[np.uint8] = cv2.addWeighted(np.ascontiguousarray(frame), 1 - alpha, self.colorize(), alpha, 0)
        return drawn

    def areas(self) -> dict[str, float]:
        """Share of the pixels, 0..1, of every class by name; classes that do not occur have 0."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.labels))
        return {name: float(n) / self.class_map.size for name, n in zip(self.labels.names, counts, strict=False)}

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a class is, (H, W) bool.

        Raises:
            LabelError: for an unknown class, with the nearest spelling.
        """
        found: NDArray[np.bool_] = self.class_map == self.labels.index(name)
        return found
