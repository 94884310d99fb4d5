"""One video encoder for all browsers that watch by WebRTC."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.feed import buffer_of, caps_of
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.pipeline import error_text
from edgeseg.apps.camera.sinks.encoding import fitted
from edgeseg.apps.camera.web.codecs import Codec
from edgeseg.errors import OutputError

__all__ = ["VideoEncoder", "follow"]

_KEY_INTERVAL_S = 0.3
"""Least time between two key frames that clients ask for: one that loses packets must not spoil it for the others."""

Receiver = Callable[[Any, Any, bool], None]


class VideoEncoder:
    """A pipeline from pictures to encoded frames, which go to any number of receivers.

    `push` is called by one thread; receivers are called by the encoder's and must return at once.

    Args:
        codec: how.

    Raises:
        OutputError: when the encoder does not start.
    """

    def __init__(self, codec: Codec) -> None:
        gst = gstreamer()
        self._gst, self._video = gst.Gst, gst.GstVideo
        self.codec = codec
        self.left_out = 0
        self._receivers: tuple[Receiver, ...] = ()
        self._changing = threading.Lock()
        self._size: tuple[int, int] | None = None
        self._key_wanted = False
        self._key_asked = -_KEY_INTERVAL_S
        launch = (
            f"appsrc name=pictures is-live=true format=time do-timestamp=true max-bytes=1 ! {codec.encode} ! "
            "appsink name=frames sync=false async=false emit-signals=true max-buffers=4 drop=true"
        )
        try:
            self._pipeline = self._gst.parse_launch(launch)
        except gst.GLib.Error as error:
            raise OutputError(f"cannot encode video: {error.message}") from error
        # Frames keep their time stamps on the way to the receivers, which count from the same moment.
        self.clock = self._gst.SystemClock.obtain()
        self.base_time = self.clock.get_time()
        follow(self._pipeline, self.clock, self.base_time)
        self._source = self._pipeline.get_by_name("pictures")
        self._frames = self._pipeline.get_by_name("frames")
        self._handler = self._frames.connect("new-sample", self._hand_out)
        if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
            self.stop()
            raise OutputError(f"cannot encode video as {codec.name}: the encoder does not start")

    def add(self, receiver: Receiver) -> None:
        """Give a receiver every frame from now on: Gst.Buffer, Gst.Caps, and whether it is a key frame."""
        with self._changing:
            self._receivers = (*self._receivers, receiver)

    def remove(self, receiver: Receiver) -> None:
        """Give it no more."""
        with self._changing:
            self._receivers = tuple(known for known in self._receivers if known != receiver)

    def want_key_frame(self) -> None:
        """Let one of the next frames be a key frame; any thread may ask."""
        self._key_wanted = True

    def push(self, picture: NDArray[np.uint8]) -> None:
        """Encode a picture; one that comes while the encoder is busy is left out.

        Args:
            picture: (H, W, 3) uint8 RGB. One of another size than the first is fitted into that.

        Raises:
            OutputError: when the encoder has failed.
        """
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is not None:
            raise OutputError(f"cannot encode video as {self.codec.name}: {error_text(message)}")
        if self._source.get_property("current-level-bytes"):
            self.left_out += 1
            return
        if self._size is None:
            # These codecs halve the colours' resolution: sides are even.
            self._size = max(picture.shape[0] // 2 * 2, 2), max(picture.shape[1] // 2 * 2, 2)
            self._source.set_property("caps", caps_of((*self._size, 3), 0))
        now = time.monotonic()
        if self._key_wanted and now - self._key_asked >= _KEY_INTERVAL_S:
            self._key_wanted, self._key_asked = False, now
            none = self._gst.CLOCK_TIME_NONE
            self._frames.send_event(self._video.video_event_new_upstream_force_key_unit(none, True, 0))
        self._source.push_buffer(buffer_of(fitted(picture, self._size)))

    def stop(self) -> None:
        """Free the encoder."""
        self._receivers = ()
        if self._handler:
            self._frames.disconnect(self._handler)
            self._handler = 0
        self._pipeline.set_state(self._gst.State.NULL)

    def _hand_out(self, frames: Any) -> Any:
        sample = frames.emit("pull-sample")
        if sample is not None:
            buffer, caps = sample.get_buffer().copy(), sample.get_caps()
            # Some encoders begin at a thousand hours; only the segment knows when that is.
            buffer.pts = sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
            buffer.dts = self._gst.CLOCK_TIME_NONE
            is_key = not buffer.has_flags(self._gst.BufferFlags.DELTA_UNIT)
            for receiver in self._receivers:
                receiver(buffer, caps, is_key)
        return self._gst.FlowReturn.OK


def follow(pipeline: Any, clock: Any, base_time: int) -> None:
    """Let a pipeline count its running time from a moment of a clock."""
    pipeline.use_clock(clock)
    pipeline.set_start_time(gstreamer().Gst.CLOCK_TIME_NONE)
    pipeline.set_base_time(base_time)
