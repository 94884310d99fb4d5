"""Pictures from Python into a pipeline that encodes them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import FrameLayout
from edgeseg.apps.camera.feed import buffer_of, caps_of
from edgeseg.apps.camera.gst import APT, gstreamer, mapped
from edgeseg.apps.camera.pipeline import error_text
from edgeseg.apps.camera.platform import Platform
from edgeseg.apps.camera.yuv import YuvFrame, yuv_of
from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.libraries import require

__all__ = ["PICTURES", "Encoding", "PictureForm", "fitted", "h264"]

_STEP = 0.002  # seconds between two looks at whether the encoder has taken its picture
PICTURES = "pictures"
"""Name of the appsrc in a launch string."""


def h264(platform: Platform, *, bitrate: int, rate: float) -> str:
    """The encoder that this machine has, for pictures that are seen or kept at once: none waits for a later one.

    Args:
        platform: what the machine has.
        bitrate: bits per second.
        rate: frames per second, of which a key frame comes each second.

    Raises:
        MissingDependencyError: where there is none.
    """
    name = platform.first("nvv4l2h264enc", "x264enc", "openh264enc")
    keys = max(round(rate), 1)
    if name == "nvv4l2h264enc":
        return (
            f"nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! nvv4l2h264enc bitrate={bitrate} "
            f"iframeinterval={keys} idrinterval={keys} insert-sps-pps=true ! h264parse"
        )
    options = {
        "x264enc": f"bitrate={bitrate // 1000} tune=zerolatency speed-preset=superfast key-int-max={keys}",
        "openh264enc": f"bitrate={bitrate} gop-size={keys} complexity=low",
    }
    if name is None:
        raise MissingDependencyError("x264enc or openh264enc", "encode video", APT)
    return f"videoconvert ! video/x-raw,format=I420 ! {name} {options[name]} ! h264parse"


_MATRIX_NUMBERS = {"bt709": 3, "bt601": 4, "smpte240m": 5, "bt2020": 6}
"""GstVideoColorMatrix of video-color.h."""


class PictureForm:
    """What all pictures of one encoder are brought to: the size of the first, and its colours.

    Args:
        first: (H, W, 3) uint8 RGB, or a frame with even sides in a decoder's format.
    """

    def __init__(self, first: NDArray[np.uint8] | YuvFrame) -> None:
        # H.264 halves the colours' resolution: its sides are even.
        self.size = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
        self._layout: FrameLayout | None = first.layout if isinstance(first, YuvFrame) else None

    def caps(self, rate: float) -> Any:
        """Caps of all pictures; rate 0 for one that varies."""
        caps = caps_of((*self.size, 3), rate)
        if self._layout is not None:
            full_range = 1 if self._layout.full_range else 2
            caps.set_value("format", self._layout.format)
            caps.set_value("colorimetry", f"{full_range}:{_MATRIX_NUMBERS[self._layout.matrix]}:0:0")
        return caps

    def buffer(self, picture: NDArray[np.uint8] | YuvFrame) -> Any:
        """A new Gst.Buffer with a picture; one of another size than the first is fitted into that."""
        layout = self._layout
        if layout is not None and isinstance(picture, YuvFrame) and picture.layout == layout:
            frame = picture
        else:
            rgb = fitted(picture.rgb() if isinstance(picture, YuvFrame) else picture, self.size)
            if layout is None:
                return buffer_of(rgb)
            frame = yuv_of(rgb, layout)
        buffer = gstreamer().Gst.Buffer.new_allocate(None, frame.data.size, None)
        with mapped(buffer, write=True) as content:
            np.copyto(content, frame.data)
        return buffer


class Encoding:
    """A pipeline with an appsrc `pictures` that is filled picture by picture.

    Args:
        launch: the pipeline.
        address: of the sink, for messages.
    """

    def __init__(self, launch: str, address: str) -> None:
        gst = gstreamer()
        self._gst, self._address = gst.Gst, address
        try:
            self._pipeline = self._gst.parse_launch(launch)
        except gst.GLib.Error as error:
            raise OutputError(f"cannot show results at {address}: {error.message}") from error
        self._source = self._pipeline.get_by_name(PICTURES)
        self._bus = self._pipeline.get_bus()
        self._form: PictureForm | None = None
        if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
            text = self._failure() or "the pipeline does not start"
            self._pipeline.set_state(self._gst.State.NULL)
            raise OutputError(f"cannot write {address}: {text}")

    def push(self, picture: NDArray[np.uint8] | YuvFrame, seconds: float, rate: float) -> None:
        """Append a picture; one of another size than the first is fitted into that.

        Args:
            picture: (H, W, 3) uint8 RGB, or a frame with even sides in a decoder's format.
            seconds: when it is shown, from the first.
            rate: frames per second, for the file's description.

        Raises:
            OutputError: when the pipeline has failed.
        """
        self.check()
        if self._form is None:
            self._form = PictureForm(picture)
            self._source.set_property("caps", self._form.caps(rate))
        # One picture at a time; an appsrc that blocks would never return from a pipeline that has failed.
        while self._source.get_property("current-level-bytes"):
            time.sleep(_STEP)
            self.check()
        buffer = self._form.buffer(picture)
        buffer.pts = buffer.dts = int(seconds * self._gst.SECOND)
        buffer.duration = int(self._gst.SECOND / rate)
        if self._source.push_buffer(buffer) != self._gst.FlowReturn.OK:
            self.check()
            raise OutputError(f"cannot write {self._address}: the pipeline takes no more pictures")

    def check(self) -> None:
        """Raise the pipeline's error, if it has one."""
        text = self._failure()
        if text is not None:
            raise OutputError(f"cannot write {self._address}: {text}")

    def finish(self, seconds: float = 5.0) -> None:
        """End the stream, wait for its last bytes, and free the pipeline.

        Raises:
            OutputError: when that fails or lasts longer.
        """
        kinds = self._gst.MessageType
        try:
            if self._form is not None:
                self._source.end_of_stream()
                limit = int(seconds * self._gst.SECOND)
                message = self._bus.timed_pop_filtered(limit, kinds.EOS | kinds.ERROR)
                if message is None:
                    raise OutputError(f"{self._address} does not finish; its last frames may be missing")
                if message.type == kinds.ERROR:
                    raise OutputError(f"cannot write {self._address}: {_plain(error_text(message))}")
        finally:
            self._pipeline.set_state(self._gst.State.NULL)

    def free(self) -> None:
        """Free the pipeline without finishing."""
        self._pipeline.set_state(self._gst.State.NULL)

    def _failure(self) -> str | None:
        message: Any = self._bus.pop_filtered(self._gst.MessageType.ERROR)
        return None if message is None else _plain(error_text(message))


def _plain(text: str) -> str:
    if "No space left" in text:
        return "the disk is full; free some space"
    return text


def fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture brought to (height, width) without changing its shape: cut by a line or two, or scaled with bars."""
    height, width = size
    if 0 <= picture.shape[0] - height < 2 and 0 <= picture.shape[1] - width < 2:
        return picture[:height, :width]
    cv2 = require("cv2", "scale pictures")
    scale = min(height / picture.shape[0], width / picture.shape[1])
    inner = max(round(picture.shape[0] * scale), 1), max(round(picture.shape[1] * scale), 1)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    result = np.zeros((height, width, 3), np.uint8)
    result[top : top + inner[0], left : left + inner[1]] = cv2.resize(
        np.ascontiguousarray(picture), inner[::-1], interpolation=cv2.INTER_AREA
    )
    return result
