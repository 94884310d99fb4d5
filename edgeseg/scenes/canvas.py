"""The picture while it is painted, far things first: colours, haze and labels get the same shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.labels import load_labels
from edgeseg.libraries import require
from edgeseg.scenes.camera import NEAR, Camera

__all__ = ["LABELS", "SAMPLES", "VOID", "Canvas", "Color", "Face"]

LABELS = load_labels("camvid")
VOID = LABELS.ignore_index if LABELS.ignore_index is not None else 255

SAMPLES = 2
"""Samples of a pixel along each side."""

_SHIFT = 4  # bits behind the point in the coordinates that OpenCV takes

Color = tuple[float, float, float]
Array = NDArray[np.float64]
Face = tuple[Array, Color]
"""A flat polygon: (N, 3) world points and its colour, red, green, blue, 0..255."""


class Canvas:
    """Colours with haze as fourth channel, and labels, `SAMPLES` times as large as the picture on each side.

    Attributes:
        colors: (SAMPLES H, SAMPLES W, 4) uint8: red, green, blue, share of haze in 1/255.
        labels: (SAMPLES H, SAMPLES W) uint8.
    """

    def __init__(self, camera: Camera, clear: float) -> None:
        """An empty canvas.

        Args:
            camera: its picture has the canvas' size.
            clear: distance in metres at which haze takes 63 % of the colour.
        """
        self.cv2: Any = require("cv2", "draw scenes")
        self.camera = camera
        self.clear = clear
        self.colors = np.zeros((camera.height, camera.width, 4), np.uint8)
        self.labels = np.full((camera.height, camera.width), VOID, np.uint8)

    def haze(self, distance: float) -> float:
        """Share of haze in 1/255."""
        return 255 * (1 - exp(-max(distance, 0.0) / self.clear))

    def faces(self, faces: Sequence[Face], label: int) -> None:
        """Paint polygons in the order given; each has the haze of its middle."""
        if not faces:
            return
        view = self.camera.view(np.concatenate([points for points, _ in faces]))
        near = view[:, 2] < NEAR
        if near.all():
            return
        pixels = self.camera.pixels(np.where(near[:, None], 1.0, view))
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        haze = self.haze(float(view[:, 2].mean()))
        start = 0
        for points, (red, green, blue) in faces:
            end = start + len(points)
            shape: NDArray[np.int32] | None = fixed[start:end]
            if near[start:end].any():
                cut = self.camera.polygon(points)
                shape = None if cut is None else _fixed(cut)
            start = end
            if shape is not None:
                self._fill(shape, (red, green, blue, haze), label)

    def line(self, points: Array, thickness: float, color: Color, label: int) -> None:
        """Paint a line through world points, `thickness` metres wide but never below one sample."""
        view = self.camera.view(points)
        if view[:, 2].min() < NEAR:
            return
        depth = float(view[:, 2].mean())
        wide = max(1, round(thickness * self.camera.focal / depth))
        shape = [_fixed(self.camera.pixels(view))]
        self.cv2.polylines(self.colors, shape, False, (*color, self.haze(depth)), wide, self.cv2.LINE_8, _SHIFT)
        self.cv2.polylines(self.labels, shape, False, label, wide, self.cv2.LINE_8, _SHIFT)

    def texture(
        self, image: NDArray[np.uint8], origin: Array, across: Array, up: Array, label: int | None, corners: Array
    ) -> None:
        """Paint a flat picture in perspective.

        Args:
            image: (h, w, 4) uint8, row 0 at t = 1 (top), column 0 at s = 0.
            origin, across, up: world; the picture spans origin + s across + t up for s and t in 0..1.
            label: None where the labels stay.
            corners: (N, 3) world polygon on that plane, the part that is painted.
        """
        polygon = self.camera.polygon(corners)
        if polygon is None:
            return
        low = np.maximum(np.floor(polygon.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(polygon.max(0)) + 1, (self.camera.width, self.camera.height)).astype(int)
        if (high <= low).any():
            return
        rows, columns = image.shape[:2]
        from_texture = np.array([[1 / columns, 0, 0.5 / columns], [0, -1 / rows, 1 - 0.5 / rows], [0, 0, 1]])
        shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
        matrix = shift @ self.camera.plane(origin, across, up) @ from_texture
        size = int(high[0] - low[0]), int(high[1] - low[1])
        warped = self.cv2.warpPerspective(
            image, matrix, size, flags=self.cv2.INTER_LINEAR, borderMode=self.cv2.BORDER_REPLICATE
        )
        mask = np.zeros((size[1], size[0]), np.uint8)
        self.cv2.fillPoly(mask, [_fixed(polygon - low)], 255, self.cv2.LINE_8, _SHIFT)
        self._paste(warped, mask, int(low[0]), int(low[1]), label)

    def sprite(
        self, image: NDArray[np.uint8], left: float, right: float, top: float, bottom: float, at: float, label: int
    ) -> None:
        """Paint a picture with holes that stands upright and faces along the street.

        Args:
            image: (h, w, 4) uint8 red, green, blue, and whether there is anything (above 127).
            left, right: x, metres.
            top, bottom: y, metres.
            at: z, metres.
            label: index of the class.
        """
        view = self.camera.view(np.array([[left, top, at], [right, bottom, at]]))
        if view[:, 2].min() < 2 * NEAR:
            return
        (x0, y0), (x1, y1) = self.camera.pixels(view)
        low = max(int(x0), 0), max(int(y0), 0)
        high = min(int(x1) + 1, self.camera.width), min(int(y1) + 1, self.camera.height)
        if high[0] <= low[0] or high[1] <= low[1]:
            return
        rows, columns = image.shape[:2]
        matrix = np.array([[(x1 - x0) / columns, 0, x0 - low[0]], [0, (y1 - y0) / rows, y0 - low[1]]])
        size = high[0] - low[0], high[1] - low[1]
        warped = self.cv2.warpAffine(image, matrix, size, flags=self.cv2.INTER_LINEAR)
        mask = self.cv2.threshold(warped[:, :, 3], 127, 255, self.cv2.THRESH_BINARY)[1]
        warped[:, :, 3] = round(self.haze(float(view[:, 2].mean())))
        self._paste(warped, mask, *low, label)

    def ground_shadow(self, shapes: Sequence[Array], strength: float) -> None:
        """Darken what is painted so far, the ground, where shadows lie; their edges are soft.

        Args:
            shapes: (N, 3) convex world polygons on the ground.
            strength: share of the light that is lost, 0..1.
        """
        top = min(max(int(self.camera.horizon), 0), self.camera.height - 2) // SAMPLES
        light = np.full((self.camera.height // SAMPLES - top, self.camera.width // SAMPLES), 255, np.uint8)
        for shape in shapes:
            polygon = self.camera.polygon(shape)
            if polygon is not None:
                hull = self.cv2.convexHull((polygon / SAMPLES - (0, top)).astype(np.float32))[:, 0]
                self.cv2.fillConvexPoly(light, _fixed(hull), 255 * (1 - strength), self.cv2.LINE_8, _SHIFT)
        rows = self.colors[top * SAMPLES :]
        light = self.cv2.resize(self.cv2.blur(light, (3, 3)), (rows.shape[1], rows.shape[0]))
        bluish = self.cv2.addWeighted(light, 0.88, light, 0, 255 * 0.12)  # the sky still lights it
        whole = np.full_like(light, 255)
        self.cv2.multiply(rows, self.cv2.merge([light, light, bluish, whole]), dst=rows, scale=1 / 255)

    def _fill(self, shape: NDArray[np.int32], color: tuple[float, float, float, float], label: int) -> None:
        self.cv2.fillPoly(self.colors, [shape], color, self.cv2.LINE_8, _SHIFT)
        self.cv2.fillPoly(self.labels, [shape], label, self.cv2.LINE_8, _SHIFT)

    def _paste(self, image: NDArray[np.uint8], mask: NDArray[np.uint8], x: int, y: int, label: int | None) -> None:
        rows, columns = mask.shape
        self.cv2.copyTo(image, mask, self.colors[y : y + rows, x : x + columns])
        if label is not None:
            self.cv2.copyTo(np.full_like(mask, label), mask, self.labels[y : y + rows, x : x + columns])


def _fixed(pixels: Array | NDArray[np.float32]) -> NDArray[np.int32]:
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
