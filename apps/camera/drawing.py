"""What a person sees of a result: overlay, mask or both side by side, with a legend and the frame rate."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.blending import YuvTints, blend, blend_table, blend_yuv, warm_up, yuv_tints
from edgeseg.apps.camera.element.pixels import FrameLayout
from edgeseg.apps.camera.results import CameraResult
from edgeseg.apps.camera.yuv import YuvFrame
from edgeseg.errors import UsageError
from edgeseg.labels import LabelSet
from edgeseg.libraries import require

__all__ = ["STYLES", "Drawing", "Painter", "draw"]

Style = Literal["overlay", "mask", "side-by-side"]
STYLES: tuple[str, ...] = get_args(Style)

_INK, _PAPER = (255, 255, 255), (0, 0, 0)
_LEAST_AREA = 0.001  # share of the pixels from which a class stands in the legend


@dataclass(frozen=True)
class Drawing:
    """How a result is drawn.

    Attributes:
        style: "overlay" (colours over the frame), "mask" (colours alone) or "side-by-side" (frame, then overlay).
        alpha: share of the colours in the overlay, 0..1.
        classes: names of the classes that are drawn; None for all.
        legend: whether names, colours and areas of the classes are written on it.
        rate: whether frames per second and latency are.
    """

    style: Style = "overlay"
    alpha: float = 0.5
    classes: tuple[str, ...] | None = None
    legend: bool = False
    rate: bool = False

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"a result is drawn as {', '.join(STYLES)}, but {self.style!r} was asked for")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is the share of colour and must be 0..1, but is {self.alpha}")

    def shown(self, labels: LabelSet) -> NDArray[np.bool_]:
        """Which classes are drawn, (256,) bool by index; a void channel never is.

        Raises:
            LabelError: for an unknown class, with the nearest spelling.
        """
        shown = np.zeros(256, bool)
        if self.classes is None:
            shown[: len(labels)] = True
        else:
            shown[[labels.index(name) for name in self.classes]] = True
        if labels.background is not None:
            shown[labels.background] = False
        return shown


def draw(result: CameraResult, drawing: Drawing, frames_per_second: float | None = None) -> NDArray[np.uint8]:
    """Draw a result.

    Args:
        result: a frame and its class map.
        drawing: how.
        frames_per_second: what is written where `drawing.rate` asks for it.

    Returns:
        (H, W, 3) uint8 RGB, a new array; (H, 2 W, 3) side by side.

    Raises:
        LabelError: for a class in the drawing that the network does not have.
        MissingDependencyError: without OpenCV.
    """
    cv2 = require("cv2", "draw results")
    image, class_map = result.frame.image, result.segmentation.class_map
    shown, colors, table = _tables(result.segmentation.labels, drawing)
    picture: NDArray[np.uint8]
    if drawing.style == "mask":
        picture = cv2.applyColorMap(class_map, colors[:, None, :])
    else:
        picture = blend(image, class_map, table)
        if drawing.style == "side-by-side":
            picture = cv2.hconcat([np.ascontiguousarray(image), picture])
    if drawing.legend:
        _write_legend(picture, result, shown)
    if drawing.rate:
        rate = "" if frames_per_second is None else f"{frames_per_second:.1f} frames/s, "
        _write(picture, f"{rate}{result.latency_ms:.0f} ms", picture.shape[0] - 8, None)
    return picture


def _draw_on_yuv(result: CameraResult, drawing: Drawing) -> YuvFrame | None:
    """An overlay in the decoder's format; None where that cannot be: text and masks are drawn in RGB."""
    frame = result.frame.pixels
    if not isinstance(frame, YuvFrame) or drawing.style != "overlay" or drawing.legend or drawing.rate:
        return None
    # Encoders halve the sides, and not all of them can say that luma has the full range.
    if frame.layout.full_range or frame.layout.height % 2 or frame.layout.width % 2:
        return None
    return blend_yuv(frame, result.segmentation.class_map, _tints(result.segmentation.labels, drawing, frame.layout))


@functools.lru_cache(maxsize=8)
def _tints(labels: LabelSet, drawing: Drawing, layout: FrameLayout) -> YuvTints:
    shown = drawing.shown(labels)
    return yuv_tints(layout, labels.colors(), shown | (np.arange(256) >= len(labels)), drawing.alpha)


@functools.lru_cache(maxsize=8)
def _tables(labels: LabelSet, drawing: Drawing) -> tuple[NDArray[np.bool_], NDArray[np.uint8], NDArray[np.uint8]]:
    """Which classes are drawn, the colours of those alone, and their blends with every value of a frame."""
    shown = drawing.shown(labels)
    colors = labels.colors()
    colors[~shown] = 0
    return shown, colors, blend_table(colors, shown | (np.arange(256) >= len(labels)), drawing.alpha)


def _write_legend(picture: NDArray[np.uint8], result: CameraResult, shown: NDArray[np.bool_]) -> None:
    labels = result.segmentation.labels
    counts = np.bincount(result.segmentation.class_map.ravel(), minlength=256) / result.segmentation.class_map.size
    present: Sequence[int] = [int(i) for i in np.argsort(-counts[: len(labels)]) if counts[i] >= _LEAST_AREA]
    line = _line_height(picture)
    rows = [index for index in present if shown[index]][: max((picture.shape[0] - 2 * line) // line, 0)]
    for row, index in enumerate(rows):
        _write(picture, f"{labels.names[index]} {100 * counts[index]:.0f} %", (row + 1) * line, labels.palette[index])


def _line_height(picture: NDArray[np.uint8]) -> int:
    return max(14, int(picture.shape[0]) // 30)


def _write(picture: NDArray[np.uint8], text: str, y: int, color: tuple[int, int, int] | None) -> None:
    """A line of text at the left with its colour before it."""
    cv2 = require("cv2", "draw results")
    line = _line_height(picture)
    x, scale = 6, line / 30
    if color is not None:
        cv2.rectangle(picture, (x, y - line + 5), (x + line - 4, y), color, -1)
        x += line
    for ink, away in ((_PAPER, 1), (_INK, 0)):
        cv2.putText(picture, text, (x + away, y - 1 + away), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


class Painter:
    """Draws each result of a stream once, for however many sinks.

    Args:
        drawing: how.
    """

    def __init__(self, drawing: Drawing | None = None) -> None:
        self.drawing = drawing or Drawing()
        if self.drawing.style != "mask":
            warm_up()
        self._lock = threading.Lock()
        self._drawn: tuple[CameraResult, NDArray[np.uint8]] | None = None
        self._drawn_on_yuv: tuple[CameraResult, YuvFrame | None] | None = None
        self._finished: float | None = None
        self._interval: float | None = None

    def paint(self, result: CameraResult) -> NDArray[np.uint8]:
        """The picture of a result, (H, W, 3) uint8 RGB, shared: nobody writes to it.

        Raises:
            LabelError, MissingDependencyError: as `draw`.
        """
        with self._lock:
            if self._drawn is not None and self._drawn[0] is result:
                return self._drawn[1]
            if self._finished is not None and result.finished > self._finished:
                interval = result.finished - self._finished
                self._interval = interval if self._interval is None else 0.9 * self._interval + 0.1 * interval
            self._finished = result.finished
            picture = draw(result, self.drawing, 1 / self._interval if self._interval else None)
            picture.flags.writeable = False
            self._drawn = result, picture
            return picture

    def paint_for_video(self, result: CameraResult) -> NDArray[np.uint8] | YuvFrame:
        """The same for an encoder: in the decoder's own format where the drawing can be made in it, else as `paint`.

        An encoder takes luma and chroma, so that nothing is converted on the way.

        Raises:
            LabelError, MissingDependencyError: as `draw`.
        """
        with self._lock:
            if self._drawn_on_yuv is None or self._drawn_on_yuv[0] is not result:
                self._drawn_on_yuv = result, _draw_on_yuv(result, self.drawing)
            picture = self._drawn_on_yuv[1]
        return self.paint(result) if picture is None else picture
