"""A client of the page's video without a browser: GStreamer's own WebRTC, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.web_page import WAIT_S

from edgeseg.apps.camera.gst import first_structure, gstreamer, introspected, mapped

_DECODE = {
    "VP8": "rtpvp8depay request-keyframe=true wait-for-keyframe=true ! vp8dec",
    "H264": "rtph264depay request-keyframe=true wait-for-keyframe=true ! h264parse ! avdec_h264",
}


class VideoClient:
    """Answers an offer and decodes what comes."""

    def __init__(self, offer: str) -> None:
        gst = gstreamer()
        self._gst = gst.Gst
        self._webrtc, self._sdp = introspected("GstWebRTC", ""), introspected("GstSdp", "")
        encoding = next(name for name in _DECODE if name in offer)
        self.pipeline = self._gst.parse_launch(
            f"webrtcbin name=client bundle-policy=max-bundle latency=200 client. ! {_DECODE[encoding]} ! "
            "videoconvert ! video/x-raw,format=RGB ! appsink name=pictures sync=false max-buffers=1 drop=true"
        )
        self._bin = self.pipeline.get_by_name("client")
        self._pictures = self.pipeline.get_by_name("pictures")
        self._kept: list[Any] = []
        self.pipeline.set_state(self._gst.State.PLAYING)
        self._ask("set-remote-description", self._description("OFFER", offer))
        answer = self._ask("create-answer", None).get_value("answer")
        self._ask("set-local-description", answer)
        end = time.monotonic() + WAIT_S
        while self._bin.get_property("ice-gathering-state").value_nick != "complete":
            assert time.monotonic() < end, "no addresses"
            time.sleep(0.01)
        self.answer: str = self._bin.get_property("local-description").sdp.as_text()

    def picture(self, seconds: float = WAIT_S) -> NDArray[np.uint8] | None:
        """The newest picture, (H, W, 3) uint8 RGB, or None where none comes."""
        sample = self._pictures.emit("try-pull-sample", int(seconds * self._gst.SECOND))
        if sample is None:
            return None
        with first_structure(sample.get_caps()) as structure:
            height, width = structure.get_value("height"), structure.get_value("width")
        with mapped(sample.get_buffer()) as content:
            rows = content.reshape(height, -1)[:, : 3 * width]
            return np.array(rows.reshape(height, width, 3))

    def ask_for_a_key_frame(self) -> None:
        """What a decoder does that has lost a packet."""
        none = self._gst.CLOCK_TIME_NONE
        event = gstreamer().GstVideo.video_event_new_upstream_force_key_unit(none, True, 0)
        self._pictures.send_event(event)

    def close(self) -> None:
        """Go without a word."""
        self.pipeline.set_state(self._gst.State.NULL)
        self._kept.clear()

    def _description(self, kind: str, text: str) -> Any:
        _, message = self._sdp.SDPMessage.new_from_text(text)
        return self._webrtc.WebRTCSessionDescription.new(getattr(self._webrtc.WebRTCSDPType, kind), message)

    def _ask(self, action: str, argument: Any) -> Any:
        done = threading.Event()
        promise = self._gst.Promise.new_with_change_func(lambda *_: done.set())
        self._bin.emit(action, argument, promise)
        assert done.wait(WAIT_S), action
        self._kept.append((promise, argument, promise.get_reply()))
        return self._kept[-1][2]


@contextlib.asynccontextmanager
async def watching(session: Any, path: str = "/video") -> AsyncIterator[VideoClient]:
    """A client that has answered, until the block ends."""
    async with session.ws_connect(path) as socket:
        message = await socket.receive_json(timeout=WAIT_S)
        assert message["kind"] == "offer", message
        client = await asyncio.to_thread(VideoClient, message["sdp"])
        try:
            await socket.send_json({"sdp": client.answer})
            yield client
        finally:
            await asyncio.to_thread(client.close)
