"""Serves the page from a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from edgeseg.apps.camera.drawing import Painter
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.codecs import codec_of
from edgeseg.apps.camera.web.figures import Figures
from edgeseg.apps.camera.web.live import Clients
from edgeseg.apps.camera.web.newest import Newest
from edgeseg.apps.camera.web.routes import Routes, Shown
from edgeseg.apps.camera.web.video import Video, VideoOptions
from edgeseg.errors import MissingDependencyError, OutputError

__all__ = ["WebServer"]

_LOGGER = logging.getLogger(__name__)

_STOP_S = 5.0
_ENCODING_NICENESS = 10
"""A tenth of the share of a thread of usual priority, where both want the same processor."""


class WebServer:
    """The page of one stream."""

    def __init__(
        self,
        address: WebAddress,
        stream: StreamFacts,
        painter: Painter,
        patience: float = 5.0,
        bitrate: int = 4_000_000,
    ) -> None:
        """Nothing is served before `start`.

        Args:
            address: where, and for whom.
            stream: names the stream and its classes.
            painter: draws the motion JPEG and the snapshot, in a worker thread.
            patience: seconds after which a client that takes nothing is dropped.
            bitrate: of the video, bits per second.

        Raises:
            MissingDependencyError: without aiohttp.
        """
        try:
            import aiohttp  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingDependencyError("aiohttp", "serve the web page", "pip install 'edgeseg[camera]'") from error
        self._address = address
        self._port = address.port
        self._newest = Newest()
        self._figures = Figures()
        self._clients = Clients(patience=patience)
        self._video = VideoOptions(
            functools.partial(codec_of, address.codec, bitrate=bitrate, rate=stream.frame_rate or address.rate),
            width=address.width,
            rate=address.rate,
            patience=patience,
        )
        self._shown = Shown(stream, painter, self._newest, self._figures)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What is typed into a browser, with the token."""
        return self._address.url(self._port)

    def start(self) -> None:
        """Serve from now on.

        Raises:
            OutputError: when the address cannot be had.
        """
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="edgeseg-web", daemon=True)
        self._thread.start()
        try:
            self._port = started.result()
        except OSError as error:
            self.stop()
            raise OutputError(f"cannot serve the web page at {self._place}: {_reason(error)}") from error

    def put(self, result: CameraResult) -> None:
        """Show a result; returns at once."""
        self._figures.put(result)
        self._newest.put(result)

    def stop(self) -> None:
        """Close every connection and end the threads; a second call does nothing."""
        if self._thread is None:
            return
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop has ended by itself.
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            _LOGGER.warning("the web server did not end within %g s", _STOP_S)
        self._thread = None

    @property
    def _place(self) -> str:
        host = self._address.host
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    def _run(self, started: Future[int]) -> None:
        with ThreadPoolExecutor(1, "edgeseg-web-encode", _stand_back) as worker:
            asyncio.run(self._serve(started, worker))

    async def _serve(self, started: Future[int], worker: ThreadPoolExecutor) -> None:
        from aiohttp import web

        self._loop = asyncio.get_running_loop()
        self._newest.attach(self._loop)
        video = Video(self._newest, self._shown.painter, self._video, worker)
        routes = Routes(self._address, self._shown, self._clients, video, worker)
        runner = web.AppRunner(
            routes.application(),
            access_log=None,
            logger=_LOGGER,
            shutdown_timeout=0.2,
            # A client that leaves while it waits for a picture is noticed then, and not at the next picture.
            handler_cancellation=True,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, self._address.host, self._port).start()
            started.set_result(runner.addresses[0][1])
            await self._stopping.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._clients.drop_all()
            await runner.cleanup()
            await video.close()


def _stand_back() -> None:
    """Let this thread encode with what the network leaves of the processors; only Linux has priorities by thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ENCODING_NICENESS)


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program has this port; stop it or give another port"
    if error.errno == errno.EACCES:
        return "ports below 1024 are the system's; give another, such as 8080"
    # From Python 3.13 on asyncio passes such addresses over, and its error has no number when none is left.
    if error.errno in (errno.EADDRNOTAVAIL, None):
        return "this machine has no such address; give 127.0.0.1, or 0.0.0.0 for all that it has"
    return f"{error.strerror or error}"
