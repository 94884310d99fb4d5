"""The frames of a pipeline, read once where it left them: RGB, or a decoder's luma and chroma as they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import FORMATS, MATRICES, FrameLayout, planes_of
from edgeseg.apps.camera.gst import first_structure, gstreamer, mapped
from edgeseg.apps.camera.yuv import YuvFrame
from edgeseg.errors import FrameError, UsageError
from edgeseg.libraries import require

__all__ = ["TAKEN", "FrameReader"]

TAKEN = "video/x-raw,format={I420,NV12},interlace-mode=progressive;video/x-raw,format=RGB"
"""What videoconvert is asked for. It passes a decoder's frames on as they are, so that RGB is made of them only where
something reads it, which is also more exact here than there. Other formats, and fields, it makes RGB of."""

_PURPOSE = "read frames"


class FrameReader:
    """Reads the frames of one pipeline, and remembers what their caps say."""

    def __init__(self) -> None:
        self._caps: Any = None
        self._layout: FrameLayout | None = None

    def __call__(self, sample: Any) -> NDArray[np.uint8] | YuvFrame:
        """A copy of the pixels of a Gst.Sample: (H, W, 3) uint8 RGB, or a frame in I420 or NV12.

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
            if meta is None and layout.is_yuv and data.size >= layout.size:
                return YuvFrame(data[: layout.size].copy(), layout)
            _check_size(data.size, layout, offsets, strides)
            if layout.is_yuv:
                return YuvFrame(_packed(data, layout, offsets, strides), layout)
            return _rgb_from_packed(data, layout, offsets[0], strides[0])


def _described(caps: Any) -> FrameLayout:
    """The layout that caps announce."""
    with first_structure(caps) as structure:
        name = structure.get_value("format")
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


def _packed(
    data: NDArray[np.uint8], layout: FrameLayout, offsets: tuple[int, ...], strides: tuple[int, ...]
) -> NDArray[np.uint8]:
    """A copy of a buffer's planes, laid out as GStreamer does by itself."""
    copied = np.empty(layout.size, np.uint8)
    given = planes_of(data, dataclasses.replace(layout, offsets=offsets, strides=strides))
    for mine, theirs in zip(planes_of(copied, layout), given, strict=True):
        np.copyto(mine, theirs)
    return copied


def _rgb_from_packed(data: NDArray[np.uint8], layout: FrameLayout, offset: int, stride: int) -> NDArray[np.uint8]:
    size = len(layout.format)
    view = np.ndarray((layout.height, layout.width, size), np.uint8, data, offset, (stride, size, 1))
    if layout.format == "RGB":
        copied: NDArray[np.uint8] = view.copy()
        return copied
    cv2 = require("cv2", _PURPOSE)
    code = f"COLOR_{layout.format[:3]}{'A' if size == 4 else ''}2RGB"
    return np.asarray(cv2.cvtColor(view, getattr(cv2, code)), np.uint8)
