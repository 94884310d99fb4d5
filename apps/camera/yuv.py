"""A decoder's frame as it is, luma and chroma: made RGB as a whole, or only where a network's resize reads it."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import MATRICES, FrameLayout, planes_of, to_yuv
from edgeseg.frame import FittableFrame
from edgeseg.kernels import run_compiled
from edgeseg.libraries import require

__all__ = ["Chroma", "YuvFrame", "chroma_of", "warm_up", "yuv_of"]

_PURPOSE = "read frames"
_ROWS = 64  # rows whose three channels stay in the processor's cache until they are put side by side
_threads = threading.local()

Chroma = tuple[int, int, int, int]
"""First byte of U and of V, bytes from row to row, and from one value to the next."""


@dataclass(frozen=True, eq=False)
class YuvFrame(FittableFrame):
    """A frame in I420 or NV12.

    Attributes:
        data: (N,) uint8, the whole buffer, contiguous; nobody writes to it.
        layout: where the planes are in it, their matrix and range.
    """

    data: NDArray[np.uint8]
    layout: FrameLayout

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of the frame as RGB."""
        return self.layout.height, self.layout.width, 3

    def rgb(self) -> NDArray[np.uint8]:
        """RGB by the formulas of ITU-R BT.601-7, BT.709-6 and their kin, in float32; four pixels share their chroma.

        Returns:
            (H, W, 3) uint8, a new array.
        """
        cv2 = require("cv2", _PURPOSE)
        layout, (blue, red, chroma_stride, step) = self.layout, chroma_of(self.layout)
        height, width = layout.height, layout.width
        coefficients = _coefficients(layout.matrix, layout.full_range)
        planes, lines = _scratch(width)
        picture = np.empty((height, width, 3), np.uint8)
        for start in range(0, height, _ROWS):
            stop = min(start + _ROWS, height)
            down = start // 2 * chroma_stride
            places = (layout.offsets[0] + start * layout.strides[0], blue + down, red + down)
            strides = (layout.strides[0], chroma_stride, step)
            run_compiled(_PURPOSE, _convert, self.data, *places, *strides, coefficients, stop - start, *lines, planes)
            cv2.merge([plane[: stop - start] for plane in planes], dst=picture[start:stop])
        return picture

    def fit(self, out: NDArray[np.uint8]) -> None:
        """What `edgeseg.frame.fit_frame` makes of `rgb`, to the bit where it makes a frame smaller.

        Only the pixels that a bilinear resize reads are converted: two of fourteen at a quarter of the width.

        Args:
            out: (h, w, 3) uint8, contiguous, that is written.
        """
        layout = self.layout
        if out.shape == self.shape:
            np.copyto(out, self.rgb())
            return
        rows, columns = _taps(layout.height, out.shape[0], True), _taps(layout.width, out.shape[1], False)
        coefficients = _coefficients(layout.matrix, layout.full_range)
        places = (layout.offsets[0], layout.strides[0], *chroma_of(layout))
        scratch = _fit_scratch(out.shape[0], out.shape[1])
        taps = (*rows, *(array.reshape(-1) for array in columns))
        run_compiled(_PURPOSE, _fit, self.data, *places, coefficients, *taps, *scratch)
        require("cv2", _PURPOSE).merge(list(scratch[-1]), dst=out)


def chroma_of(layout: FrameLayout) -> Chroma:
    """Where the chroma is: NV12 has U and V in turns in one plane, I420 has a plane of each."""
    if len(layout.offsets) == 2:
        return layout.offsets[1], layout.offsets[1] + 1, layout.strides[1], 2
    return layout.offsets[1], layout.offsets[2], layout.strides[1], 1


def yuv_of(picture: NDArray[np.uint8], layout: FrameLayout) -> YuvFrame:
    """A picture in a decoder's format: the other way round than `YuvFrame.rgb`.

    Args:
        picture: (H, W, 3) uint8 RGB of the layout's size, which is even.
        layout: of the new frame.
    """
    cv2 = require("cv2", "encode pictures")
    matrix, offset = to_yuv(layout)
    channels = cv2.transform(picture, np.concatenate([matrix, offset[:, None]], axis=1))
    half = (layout.width // 2, layout.height // 2)
    chroma = cv2.resize(np.ascontiguousarray(channels[:, :, 1:]), half, interpolation=cv2.INTER_AREA)
    data = np.empty(layout.size, np.uint8)
    luma, *planes = planes_of(data, layout)
    luma[:, :, 0] = channels[:, :, 0]
    for plane, part in zip(planes, np.split(chroma, len(planes), axis=2), strict=True):
        np.copyto(plane, part)
    return YuvFrame(data, layout)


def warm_up() -> None:
    """Compile what reads YUV, or load it from the cache, before the first frame waits for it."""
    data = np.zeros(6, np.uint8)
    data.flags.writeable = False
    frame = YuvFrame(data, FrameLayout("I420", 2, 2, (0, 4, 5), (2, 1, 1)))
    frame.rgb()
    frame.fit(np.empty((1, 1, 3), np.uint8))


@functools.cache
def _coefficients(matrix: str, full_range: bool) -> NDArray[np.float32]:
    """Factors of luma, of V in red, of U and V in green, of U in blue, and what is added to all (BT.709-6, 3.2 to 3.5).

    The half in the last makes cutting off round to nearest.
    """
    red, blue = MATRICES[matrix]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    of_red, of_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    values = (luma, of_red, -of_blue * blue / green, -of_red * red / green, of_blue, 0.5 - black * luma)
    return np.array(values, np.float32)


@functools.lru_cache(maxsize=32)
def _taps(size: int, wanted: int, rows: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which two pixels of an axis each pixel of a smaller or larger one lies between, and their shares.

    OpenCV's INTER_LINEAR: pixels are areas, shares have 11 bits, and beyond the last pixels those are repeated.

    Returns:
        Indices and shares of 2048, each (2, wanted) int32.
    """
    position = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).astype(np.float32)
    lower = np.floor(position).astype(np.int32)
    share = position - lower
    if not rows:
        share[(lower < 0) | (lower >= size - 1)] = 0
        lower = lower.clip(0, size - 1)
    places = np.stack([lower, lower + 1]).clip(0, size - 1).astype(np.int32)
    shares = np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int32)
    return places, shares


def _scratch(width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Memory of `_convert`, kept by thread: `planes` (3, _ROWS, W) and `lines` (3, W rounded up to even)."""
    kept: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = getattr(_threads, "scratch", None)
    if kept is None or kept[0].shape[2] != width:
        kept = np.empty((3, _ROWS, width), np.uint8), np.empty((3, width + width % 2), np.float32)
        _threads.scratch = kept
    return kept


def _fit_scratch(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8]]:
    """Memory of `_fit`, kept by thread: `lines` (6, 2 w), `tapped` (2, 3, 2 w), and `planes` (3, h, w)."""
    kept: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8]] | None = getattr(_threads, "fit", None)
    if kept is None or kept[2].shape[1:] != (height, width):
        lines, tapped = np.empty((6, 2 * width), np.float32), np.empty((2, 3, 2 * width), np.int32)
        kept = _threads.fit = lines, tapped, np.empty((3, height, width), np.uint8)
    return kept


def _convert(  # type: ignore[no-untyped-def]
    data, luma_at, blue_at, red_at, luma_stride, chroma_stride, step, coefficients, rows, red, green, blue, planes
):
    """Some rows of YUV as planes of red, green and blue; the first is an even one. The lines are scratch."""
    of_luma, red_of_v, green_of_u = coefficients[0], coefficients[1], coefficients[2]
    green_of_v, blue_of_u, added = coefficients[3], coefficients[4], coefficients[5]
    width = planes.shape[2]
    half = red.shape[0] // 2
    least, most, middle = np.float32(0), np.float32(255), np.float32(128)
    for y in range(rows):
        if y % 2 == 0:
            # What chroma adds to a row is the same for the row below.
            start = y // 2 * chroma_stride
            end = start + (half - 1) * step + 1
            u_line, v_line = data[blue_at + start : blue_at + end], data[red_at + start : red_at + end]
            for i in range(half):
                at = np.uint64(i * step)  # a signed index would be tested for being negative
                u, v = np.float32(u_line[at]) - middle, np.float32(v_line[at]) - middle
                r, g, b = red_of_v * v + added, green_of_u * u + green_of_v * v + added, blue_of_u * u + added
                red[2 * i], red[2 * i + 1] = r, r
                green[2 * i], green[2 * i + 1] = g, g
                blue[2 * i], blue[2 * i + 1] = b, b
        start = luma_at + y * luma_stride
        line = data[start : start + width]
        red_out, green_out, blue_out = planes[0, y], planes[1, y], planes[2, y]
        for x in range(width):
            luma = np.float32(line[x]) * of_luma
            red_out[x] = np.uint8(min(max(luma + red[x], least), most))
            green_out[x] = np.uint8(min(max(luma + green[x], least), most))
            blue_out[x] = np.uint8(min(max(luma + blue[x], least), most))


def _fit(  # type: ignore[no-untyped-def]
    data, luma_at, luma_stride, blue_at, red_at, chroma_stride, step, coefficients,
    row_places, row_shares, column_places, column_shares, lines, tapped, planes,
):  # fmt: skip
    """The pixels that a bilinear resize reads, converted and resized in OpenCV's integers (resize.cpp)."""
    of_luma, red_of_v, green_of_u = coefficients[0], coefficients[1], coefficients[2]
    green_of_v, blue_of_u, added = coefficients[3], coefficients[4], coefficients[5]
    least, most, middle = np.float32(0), np.float32(255), np.float32(128)
    u, v, luma = lines[0], lines[1], lines[2]
    count, width = luma.shape[0], planes.shape[2]
    chroma_row = -1
    for y in range(planes.shape[1]):
        for tap in range(2):
            row = row_places[tap, y]
            if row // 2 != chroma_row:
                chroma_row = row // 2
                start = chroma_row * chroma_stride
                u_line, v_line = data[blue_at + start :], data[red_at + start :]
                for i in range(count):
                    at = np.uint64(column_places[i] >> 1) * np.uint64(step)  # a signed index is tested for its sign
                    u[i] = np.float32(u_line[at])
                    v[i] = np.float32(v_line[at])
                for i in range(count):
                    lines[3, i] = red_of_v * (v[i] - middle) + added
                    lines[4, i] = green_of_u * (u[i] - middle) + green_of_v * (v[i] - middle) + added
                    lines[5, i] = blue_of_u * (u[i] - middle) + added
            line = data[luma_at + row * luma_stride :]
            for i in range(count):
                luma[i] = np.float32(line[np.uint64(column_places[i])])
            for channel in range(3):
                chroma, result = lines[3 + channel], tapped[tap, channel]
                for i in range(count):
                    value = min(max(luma[i] * of_luma + chroma[i], least), most)
                    result[i] = np.int32(value) * column_shares[i]
        upper, lower = row_shares[0, y], row_shares[1, y]
        for channel in range(3):
            above, below, line_out = tapped[0, channel], tapped[1, channel], planes[channel, y]
            for x in range(width):
                first = np.int32(np.int32(above[x] + above[x + width]) >> 4) * upper
                second = np.int32(np.int32(below[x] + below[x + width]) >> 4) * lower
                line_out[x] = np.uint8(np.int32((first >> 16) + (second >> 16) + 2) >> 2)
