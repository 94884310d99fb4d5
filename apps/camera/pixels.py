"""The frames of a pipeline as RGB arrays: each is read once, where the pipeline left it, and written once."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import FORMATS, MATRICES, FrameLayout
from edgeseg.apps.camera.gst import gstreamer, mapped
from edgeseg.errors import FrameError, UsageError
from edgeseg.kernels import run_compiled
from edgeseg.libraries import require

__all__ = ["TAKEN", "FrameReader", "rgb_from_yuv", "warm_up"]

TAKEN = "video/x-raw,format={I420,NV12},interlace-mode=progressive;video/x-raw,format=RGB"
"""What videoconvert is asked for. It passes a decoder's frames on as they are: reading them here costs less than half
of a conversion to RGB there and a copy, and is more exact. Other formats, and fields, it makes RGB of."""

_PURPOSE = "read frames"
_ROWS = 64  # rows whose three channels stay in the processor's cache until they are put side by side
_threads = threading.local()


class FrameReader:
    """Reads the frames of one pipeline, and remembers what their caps say."""

    def __init__(self) -> None:
        self._caps: Any = None
        self._layout: FrameLayout | None = None

    def __call__(self, sample: Any) -> NDArray[np.uint8]:
        """A new array (H, W, 3) uint8 RGB with the pixels of a Gst.Sample.

        Raises:
            UsageError: for a format that is not read.
            FrameError: for a buffer that is smaller than its caps say.
            EngineError: for one that is empty.
        """
        caps, buffer = sample.get_caps(), sample.get_buffer()
        # PyGObject's hash of caps is their address, which stays theirs as long as they are kept here.
        if self._layout is None or hash(caps) != hash(self._caps):
            self._caps, self._layout = caps, _described(caps)
        layout = self._layout
        meta = gstreamer().GstVideo.buffer_get_video_meta(buffer)
        offsets, strides = layout.offsets, layout.strides
        if meta is not None:
            offsets, strides = tuple(meta.offset[: len(offsets)]), tuple(meta.stride[: len(strides)])
        with mapped(buffer) as data:
            _check_size(data.size, layout, offsets, strides)
            if layout.is_yuv:
                return rgb_from_yuv(data, layout, offsets, strides)
            return _rgb_from_packed(data, layout, offsets[0], strides[0])


def rgb_from_yuv(
    data: NDArray[np.uint8], layout: FrameLayout, offsets: tuple[int, ...], strides: tuple[int, ...]
) -> NDArray[np.uint8]:
    """RGB by the formulas of ITU-R BT.601-7, BT.709-6 and their kin, in float32; four pixels share their chroma.

    Args:
        data: (N,) uint8, the whole buffer, contiguous.
        layout: format, size, matrix and range.
        offsets, strides: of this buffer's planes, in bytes.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    cv2 = require("cv2", _PURPOSE)
    height, width = layout.height, layout.width
    # NV12 has U and V in turns in one plane, I420 has a plane of each.
    together = len(offsets) == 2
    blue, red = (offsets[1], offsets[1] + 1) if together else offsets[1:]
    step = 2 if together else 1
    coefficients = _coefficients(layout.matrix, layout.full_range)
    planes, lines = _scratch(width)
    picture = np.empty((height, width, 3), np.uint8)
    for start in range(0, height, _ROWS):
        stop = min(start + _ROWS, height)
        places = (
            offsets[0] + start * strides[0],
            blue + start // 2 * strides[1],
            red + start // 2 * strides[-1],
            *(strides[0], strides[1], step),
        )
        run_compiled(_PURPOSE, _convert, data, *places, coefficients, stop - start, *lines, planes)
        cv2.merge([plane[: stop - start] for plane in planes], dst=picture[start:stop])
    return picture


def warm_up() -> None:
    """Compile what reads YUV, or load it from the cache, before the first frame waits for it."""
    layout = FrameLayout("I420", 2, 2, (0, 4, 5), (2, 1, 1))
    data = np.zeros(6, np.uint8)
    data.flags.writeable = False
    rgb_from_yuv(data, layout, layout.offsets, layout.strides)


def _described(caps: Any) -> FrameLayout:
    """The layout that caps announce."""
    name = caps.get_structure(0).get_value("format")
    if name not in FORMATS:
        raise UsageError(f"frames must come as {', '.join(FORMATS)}, but are {name}; put videoconvert before the end")
    info = gstreamer().GstVideo.VideoInfo.new_from_caps(caps)
    count, matrix = info.finfo.n_planes, info.colorimetry.matrix.value_nick
    return FrameLayout(
        name,
        info.height,
        info.width,
        tuple(info.offset[:count]),
        tuple(info.stride[:count]),
        matrix if matrix in MATRICES else "bt601",
        info.colorimetry.range.value_nick == "0-255",
    )


def _check_size(size: int, layout: FrameLayout, offsets: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Refuse a buffer in which a plane does not end."""
    height, width = layout.height, layout.width
    sizes = [(height, width * (1 if layout.is_yuv else len(layout.format)))]
    if layout.is_yuv:
        chroma = (2,) if len(offsets) == 2 else (1, 1)
        sizes += [(-(-height // 2), -(-width // 2) * count) for count in chroma]
    for (rows, row), offset, stride in zip(sizes, offsets, strides, strict=True):
        if offset + stride * (rows - 1) + row > size:
            raise FrameError(f"a frame of {width}x{height} {layout.format} has only {size} bytes")


def _rgb_from_packed(data: NDArray[np.uint8], layout: FrameLayout, offset: int, stride: int) -> NDArray[np.uint8]:
    size = len(layout.format)
    view = np.ndarray((layout.height, layout.width, size), np.uint8, data, offset, (stride, size, 1))
    if layout.format == "RGB":
        copied: NDArray[np.uint8] = view.copy()
        return copied
    cv2 = require("cv2", _PURPOSE)
    code = f"COLOR_{layout.format[:3]}{'A' if size == 4 else ''}2RGB"
    return np.asarray(cv2.cvtColor(view, getattr(cv2, code)), np.uint8)


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


def _scratch(width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Memory of the kernel, kept by thread: `planes` (3, _ROWS, W) and `lines` (3, W rounded up to even)."""
    kept: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = getattr(_threads, "scratch", None)
    if kept is None or kept[0].shape[2] != width:
        kept = np.empty((3, _ROWS, width), np.uint8), np.empty((3, width + width % 2), np.float32)
        _threads.scratch = kept
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
