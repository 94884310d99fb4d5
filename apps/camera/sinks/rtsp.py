"""`rtsp://@:8554/name`: the drawn results as an RTSP stream that this process serves."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any

from edgeseg.apps.camera.gst import gstreamer, introspected
from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.encoding import PICTURES, PictureForm, h264
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.worker import WorkerSink
from edgeseg.errors import OutputError, UsageError

__all__ = ["RtspStream"]

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


class RtspStream(WorkerSink):
    """Serves one stream to any number of clients, which share one encoder; without clients nothing is encoded."""

    def __init__(self, address: str, options: SinkOptions) -> None:
        super().__init__(address)
        found = re.fullmatch(r"rtsps?://@?([\w.\-]*):(\d+)/([\w./\-]+)", address)
        if found is None:
            raise UsageError(
                f"an RTSP stream is served at rtsp://@:PORT/NAME (this machine only) or rtsp://@0.0.0.0:PORT/NAME "
                f"(everyone who reaches it), but got {address}"
            )
        self.host, self.port, self._mount = found[1] or _LOOPBACK, int(found[2]), f"/{found[3]}"
        self._options = options
        self._source: Any = None
        self._form: PictureForm | None = None
        self._began = 0.0
        self._loop: Any = None
        self._server: Any = None
        self._identifier = 0

    def open(self, stream: StreamFacts) -> None:
        """Serve.

        Raises:
            OutputError: when the port cannot be had.
            MissingDependencyError: without GStreamer's RTSP server or an encoder.
        """
        gst = gstreamer()
        rtsp = introspected("GstRtspServer", "gir1.2-gst-rtsp-server-1.0")
        rate = stream.frame_rate or self._options.rate
        encoder = h264(find_platform(), bitrate=self._options.bitrate, rate=rate)
        factory = rtsp.RTSPMediaFactory()
        factory.set_launch(
            f"( appsrc name={PICTURES} is-live=true format=time max-bytes=1 ! {encoder} ! "
            "rtph264pay name=pay0 pt=96 config-interval=1 )"
        )
        factory.set_shared(True)
        factory.connect("media-configure", self._configure)
        server = rtsp.RTSPServer()
        server.set_address(self.host)
        server.set_service(str(self.port))
        server.get_mount_points().add_factory(self._mount, factory)
        context = gst.GLib.MainContext()
        self._loop = gst.GLib.MainLoop.new(context, False)
        self._identifier = server.attach(context)
        if not self._identifier:
            raise OutputError(f"cannot serve {self.address}: port {self.port} of {self.host} is taken; choose another")
        self._server = server
        threading.Thread(target=self._loop.run, name="edgeseg-rtsp", daemon=True).start()
        _log.warning("stream %s is at rtsp://%s:%d%s", stream.name, self.host, self.port, self._mount)

    def work(self, result: CameraResult) -> None:
        """Send one to whoever watches."""
        source = self._source
        if source is None:
            return
        gst = gstreamer().Gst
        picture = self._options.painter.paint_for_video(result)
        if self._form is None:
            self._form = PictureForm(picture)
        if source.get_property("caps") is None:
            source.set_property("caps", self._form.caps(0))
            self._began = time.monotonic()
        # Clients that do not read make the encoder wait, never this thread: what they miss is left out.
        if source.get_property("current-level-bytes"):
            self.left_out += 1
            return
        buffer = self._form.buffer(picture)
        buffer.pts = int((time.monotonic() - self._began) * gst.SECOND)
        if source.push_buffer(buffer) != gst.FlowReturn.OK:
            self._source = None

    def close(self) -> None:
        """Send the clients away and free the port."""
        if self._loop is None:
            return
        self._source = None
        if self._server is not None:
            drop = introspected("GstRtspServer", "gir1.2-gst-rtsp-server-1.0").RTSPFilterResult.REMOVE
            self._server.client_filter(lambda server, client: drop)
            context = self._loop.get_context()
            found = context.find_source_by_id(self._identifier)
            if found is not None:
                found.destroy()
        self._loop.quit()

    def _configure(self, factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name_recurse_up(PICTURES)
        media.connect("unprepared", self._unprepared)
        self._source = source

    def _unprepared(self, media: Any) -> None:
        self._source = None
