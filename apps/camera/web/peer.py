"""One browser that watches by WebRTC."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from edgeseg.apps.camera.gst import gstreamer, introspected
from edgeseg.apps.camera.web.encoder import VideoEncoder, follow
from edgeseg.errors import InputError, OutputError

__all__ = ["Peer"]

_WAITING = 8
"""Encoded frames that wait for a browser at most; with more, it is sent none until a key frame."""
_STEP_S = 0.01
_LONGEST_S = 20.0
"""For what this machine has to do for a connection: making its key pair takes a small and busy one seconds."""


class Peer:
    """Sends the encoder's frames to a browser over a connection of its own.

    The order is `offer`, `accept`, and `close` in any case. A connection that is slow or dead costs its own frames and
    stops nobody.

    Args:
        encoder: whose frames it sends.

    Raises:
        MissingDependencyError: without GStreamer's WebRTC.
        OutputError: when it does not start.
    """

    def __init__(self, encoder: VideoEncoder) -> None:
        gst = gstreamer()
        self._gst, self._encoder = gst.Gst, encoder
        self._webrtc = introspected("GstWebRTC", "gir1.2-gst-plugins-bad-1.0")
        self._sdp = introspected("GstSdp", "gir1.2-gst-plugins-base-1.0")
        self._connected = self._closed = False
        self._needs_key = True
        self._caps: Any = None
        self._kept: list[Any] = []
        launch = (
            "webrtcbin name=peer bundle-policy=max-bundle latency=0 "
            f"appsrc name=frames is-live=true format=time max-bytes=0 ! {encoder.codec.pay} ! peer."
        )
        try:
            self._pipeline = self._gst.parse_launch(launch)
        except gst.GLib.Error as error:
            raise OutputError(f"cannot send video by WebRTC: {error.message}") from error
        follow(self._pipeline, encoder.clock, encoder.base_time)
        self._bin = self._pipeline.get_by_name("peer")
        self._source = self._pipeline.get_by_name("frames")
        direction = self._webrtc.WebRTCRTPTransceiverDirection.SENDONLY
        self._bin.emit("get-transceiver", 0).set_property("direction", direction)
        # A browser that lost packets asks for a key frame; the wish comes out of the pipeline's upper end.
        self._pad = self._source.get_static_pad("src")
        self._probe = self._pad.add_probe(
            self._gst.PadProbeType.EVENT_UPSTREAM, _pass_wishes_on, encoder.want_key_frame
        )
        if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
            self.close()
            raise OutputError("cannot send video by WebRTC: the connection does not start")

    def offer(self) -> str:
        """What the browser is told of the connection, as SDP with all addresses of this machine; blocks.

        Raises:
            OutputError: when that takes too long.
        """
        offer = self._ask("create-offer", None).get_value("offer")
        self._ask("set-local-description", offer)
        self._wait(lambda: self._state("ice-gathering-state") == "complete", "finds no address of its own")
        text: str = self._bin.get_property("local-description").sdp.as_text()
        lines = text.splitlines()
        if self._encoder.codec.parameters:
            at = next(number for number, line in enumerate(lines) if line.startswith("a=rtpmap:"))
            lines.insert(at + 1, self._encoder.codec.parameters)
        return "\r\n".join([*lines, ""])

    def accept(self, answer: str) -> None:
        """Take the browser's answer, as SDP, and begin to send; blocks.

        Raises:
            InputError: for what is no answer.
            OutputError: when that takes too long.
        """
        good, message = self._sdp.SDPMessage.new_from_text(answer)
        if good != self._sdp.SDPResult.OK or not message.medias_len():
            raise InputError("a WebRTC client has to answer with SDP of one video, but sent something else")
        kind = self._webrtc.WebRTCSDPType.ANSWER
        self._ask("set-remote-description", self._webrtc.WebRTCSessionDescription.new(kind, message))
        self._encoder.add(self._receive)
        if self._closed:  # meanwhile, by a client that left while its answer was read
            self._encoder.remove(self._receive)

    @property
    def state(self) -> str:
        """Of the connection: "new", "connecting", "connected", "disconnected", "failed" or "closed"."""
        return self._state("connection-state")

    def close(self) -> None:
        """End the connection; blocks a moment."""
        self._closed = True
        self._encoder.remove(self._receive)
        if self._probe:
            self._pad.remove_probe(self._probe)
            self._probe = 0
        self._pipeline.set_state(self._gst.State.NULL)
        self._kept.clear()

    def _receive(self, frame: Any, caps: Any, is_key: bool) -> None:
        """Called by the encoder's thread for each frame."""
        if not self._connected:
            self._connected = self.state == "connected"
            if not self._connected:
                return
            self._encoder.want_key_frame()
        if self._source.get_property("current-level-buffers") >= _WAITING:
            self._needs_key = True
            return
        if self._needs_key and not is_key:
            self._encoder.want_key_frame()
            return
        self._needs_key = False
        if self._caps is None or not caps.is_equal(self._caps):
            self._caps = caps
            self._source.set_property("caps", caps)
        self._source.push_buffer(frame)

    def _state(self, name: str) -> str:
        nick: str = self._bin.get_property(name).value_nick
        return nick

    def _ask(self, action: str, argument: Any) -> Any:
        """One of webrtcbin's actions and its reply."""
        done = threading.Event()
        promise = self._gst.Promise.new_with_change_func(lambda *_: done.set())
        self._bin.emit(action, argument, promise)
        if not done.wait(_LONGEST_S):
            promise.interrupt()
            raise OutputError(f"cannot send video by WebRTC: {action} takes longer than {_LONGEST_S:g} s")
        reply = promise.get_reply()
        # What stands in a reply is freed with its promise, whatever PyGObject still holds of it.
        self._kept.append((promise, reply))
        if reply is not None and reply.has_field("error"):
            raise InputError(f"cannot send video by WebRTC: {action}: {reply.get_value('error')}")
        return reply

    def _wait(self, condition: Callable[[], bool], failure: str) -> None:
        end = time.monotonic() + _LONGEST_S
        while not condition():
            if time.monotonic() > end:
                raise OutputError(f"cannot send video by WebRTC: the machine {failure} within {_LONGEST_S:g} s")
            time.sleep(_STEP_S)


def _pass_wishes_on(_pad: Any, info: Any, want_key_frame: Callable[[], None]) -> Any:
    if info.get_event().has_name("GstForceKeyUnit"):
        want_key_frame()
    return gstreamer().Gst.PadProbeReturn.OK
