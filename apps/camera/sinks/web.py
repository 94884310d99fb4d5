"""`web://127.0.0.1:8080`: the live page, for any number of browsers."""

from __future__ import annotations

import dataclasses
import sys

from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.server import WebServer

__all__ = ["WebSink"]


class WebSink:
    """Serves the newest result as a page, a motion JPEG and single pictures.

    Args:
        uri: see `WebAddress.parse`. Of several streams, each has the port after the one before.
        options: of the application.

    Raises:
        UsageError: for a URI that does not fit.
    """

    def __init__(self, uri: str, options: SinkOptions) -> None:
        self._address = WebAddress.parse(uri)
        self._options = options
        self._server: WebServer | None = None

    @property
    def url(self) -> str:
        """What is typed into a browser, with the token; empty before `start`."""
        return "" if self._server is None else self._server.url

    def start(self, stream: StreamFacts) -> None:
        """Serve the page and say on stderr where it is: nobody can know a random token otherwise.

        Raises:
            MissingDependencyError: without aiohttp.
            OutputError: when the address cannot be had.
            LabelError: for a class to draw that the network does not have.
        """
        self._options.painter.drawing.shown(stream.labels)
        address = self._address
        if self._options.several and address.port:
            address = dataclasses.replace(address, port=address.port + int(stream.name))
        server = WebServer(address, stream, self._options.painter, bitrate=self._options.bitrate)
        server.start()
        self._server = server
        sys.stderr.write(f"edgeseg: stream {stream.name} is shown at {server.url}\n")

    def put(self, result: CameraResult) -> None:
        """Show a result; encoding happens in another thread, and only while somebody looks."""
        if self._server is not None:
            self._server.put(result)

    def stop(self) -> None:
        """Close every connection and end the threads."""
        if self._server is not None:
            self._server.stop()
