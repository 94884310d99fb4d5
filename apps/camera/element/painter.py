"""Class maps drawn on the planes of a frame, in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import FrameLayout, tables_of
from edgeseg.labels import LabelSet
from edgeseg.libraries import require

__all__ = ["Painter"]


class Painter:
    """Draws one class map on frames of one layout; its colours are made once, and drawn on as many frames as wanted.

    A pixel of RGB is exactly that of `Segmentation.overlay`. The chroma of YUV is drawn by the class of the upper left
    pixel of its four, where the chroma of H.264 video is sited horizontally.

    Args:
        layout: of the frames; offsets and strides may differ from frame to frame.
        labels: names and colours.
        mode: "overlay", or "mask" for the colours alone.
        alpha: share of the colour in an overlay, 0..1.
        classes: names of what is drawn; None for all. An overlay leaves the other pixels as they are, a mask black.

    Raises:
        LabelError: for an unknown class.
    """

    def __init__(
        self,
        layout: FrameLayout,
        labels: LabelSet,
        mode: Literal["overlay", "mask"],
        alpha: float,
        classes: Iterable[str] | None,
    ) -> None:
        colors = labels.colors()
        self._chosen: NDArray[np.uint8] | None = None
        if classes is not None:
            self._chosen = np.zeros(256, np.uint8)
            self._chosen[[labels.index(name) for name in classes]] = 255
            colors[self._chosen == 0] = 0
        self._tables = tables_of(layout, colors)
        self._alpha = alpha if mode == "overlay" else 1.0
        self._masked = mode == "overlay" and self._chosen is not None
        self._keeps_alpha = layout.has_alpha
        self._colored: list[NDArray[np.uint8]] = []
        self._masks: list[NDArray[np.uint8] | None] = []

    def take(self, class_map: NDArray[np.uint8]) -> None:
        """Draw this class map, (H, W) uint8, from now on."""
        cv2 = require("cv2", "draw class maps")
        self._colored, self._masks = [], []
        for index, table in enumerate(self._tables):
            part = np.ascontiguousarray(class_map[::2, ::2]) if index else class_map
            self._colored.append(cv2.LUT(cv2.merge([part] * table.shape[2]), table))
            self._masks.append(cv2.LUT(part, self._chosen) if self._masked else None)

    def draw(self, planes: Iterable[NDArray[np.uint8]]) -> None:
        """Draw on a frame's planes; nothing before the first `take`."""
        cv2 = require("cv2", "draw class maps")
        for plane, colored, mask in zip(planes, self._colored, self._masks, strict=False):
            kept = plane[:, :, 3].copy() if self._keeps_alpha else None
            if mask is not None:
                cv2.copyTo(cv2.addWeighted(plane, 1 - self._alpha, colored, self._alpha, 0), mask, plane)
            elif self._alpha == 1.0:
                cv2.copyTo(colored, None, plane)
            else:
                cv2.addWeighted(plane, 1 - self._alpha, colored, self._alpha, 0, dst=plane)
            if kept is not None:
                cv2.insertChannel(kept, plane, 3)
