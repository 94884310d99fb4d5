"""Results as video by WebRTC: one encode for all browsers, and a connection for each while its WebSocket is open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.drawing import Painter
from edgeseg.apps.camera.results import CameraResult
from edgeseg.apps.camera.web.codecs import Codec
from edgeseg.apps.camera.web.encoder import VideoEncoder
from edgeseg.apps.camera.web.live import Clients
from edgeseg.apps.camera.web.newest import Newest, SharedEncoding
from edgeseg.apps.camera.web.peer import Peer
from edgeseg.apps.camera.web.pictures import narrowed
from edgeseg.errors import EdgesegError, OutputError

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Video", "VideoOptions", "send_video"]

_LOGGER = logging.getLogger(__name__)

_MOST_PEERS = 32
"""Each connection has threads of its own, unlike the other clients."""
_ALIVE_S = 20.0
_LOOK_S = 0.2
_STILL_S = 0.5
"""Without a new frame for so long the last one is sent again, so that who joins sees where a camera stopped."""
_LARGEST_ANSWER = 65536


@dataclass(frozen=True)
class VideoOptions:
    """How video is made.

    Attributes:
        codec: finds the codec, or raises an EdgesegError that says why there is none.
        width: wider pictures are made this wide.
        rate: most pictures a second.
        patience: seconds that a browser has for its answer, and twice as many to be reached.
        most: browsers at a time.
    """

    codec: Callable[[], Codec]
    width: int = 1280
    rate: int = 30
    patience: float = 5.0
    most: int = _MOST_PEERS


class Video:
    """Encodes while anyone watches, and only then.

    Args:
        newest: the results.
        painter: draws them.
        options: how.
        worker: its thread draws.
    """

    def __init__(self, newest: Newest, painter: Painter, options: VideoOptions, worker: Executor) -> None:
        self.options = options
        self._newest, self._painter, self._worker = newest, painter, worker
        self._peers: set[Peer] = set()
        self._session: _Session | None = None
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        # Connections block while they are made and ended.
        self._blocking = ThreadPoolExecutor(4, "edgeseg-web-video")
        self._facts: dict[str, str] | None = None

    async def facts(self) -> dict[str, str]:
        """For the page: `codec`, or `missing` that says why there is no video."""
        if self._facts is None:
            try:
                self._facts = {"codec": (await self.off_loop(self.options.codec)).name}
            except EdgesegError as error:
                self._facts = {"missing": str(error)}
        return self._facts

    @property
    def failure(self) -> str:
        """Why the encoder stopped; empty while it works."""
        return "" if self._session is None else self._session.failure

    @contextlib.asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        """A connection, which is closed at the end of the block, however that comes.

        Raises:
            EdgesegError: where this machine cannot, or too many watch.
        """
        joining = asyncio.create_task(self._join())
        try:
            yield await asyncio.shield(joining)
        finally:
            leaving = asyncio.create_task(self._leave(joining))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            await asyncio.shield(leaving)

    async def off_loop(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What blocks, in a thread of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._blocking, functools.partial(work, *arguments))

    async def close(self) -> None:
        """End every connection and the threads."""
        await asyncio.gather(*self._leaving, return_exceptions=True)
        async with self._changing:
            for peer in self._peers:
                await self.off_loop(peer.close)
            self._peers.clear()
            await self._end_session()
        self._blocking.shutdown()

    async def _join(self) -> Peer:
        async with self._changing:
            if len(self._peers) >= self.options.most:
                raise OutputError(f"{self.options.most} browsers watch the video already")
            if self._session is None:
                encoder = await self.off_loop(lambda: VideoEncoder(self.options.codec()))
                self._session = _Session(encoder, self._newest, self._painter, self.options, self._worker)
            peer: Peer = await self.off_loop(Peer, self._session.encoder)
            self._peers.add(peer)
            return peer

    async def _leave(self, joining: asyncio.Task[Peer]) -> None:
        await asyncio.wait({joining})
        async with self._changing:
            if not joining.cancelled() and joining.exception() is None and joining.result() in self._peers:
                self._peers.remove(joining.result())
                await self.off_loop(joining.result().close)
            if not self._peers:
                await self._end_session()

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.end()
            await self.off_loop(session.encoder.stop)


class _Session:
    """Feeds an encoder with the newest pictures until it is ended."""

    def __init__(
        self, encoder: VideoEncoder, newest: Newest, painter: Painter, options: VideoOptions, worker: Executor
    ) -> None:
        self.encoder = encoder
        self.failure = ""
        self._painter, self._width, self._worker = painter, options.width, worker
        self._last: NDArray[np.uint8] | None = None
        self._ended = False
        self._pictures = SharedEncoding(newest, self._draw, worker, 0.9 / options.rate)
        # Who joins sees the newest at once.
        self._feeding = asyncio.create_task(self._feed(newest.item[0] - 1))

    async def end(self) -> None:
        """Push no more."""
        self._ended = True  # a drawing may still be on its way to the worker
        self._feeding.cancel()
        await asyncio.wait({self._feeding})

    async def _feed(self, version: int) -> None:
        loop = asyncio.get_running_loop()
        while not self.failure:
            try:
                version = (await asyncio.wait_for(self._pictures.after(max(version, 0)), _STILL_S)).version
            except asyncio.TimeoutError:
                await loop.run_in_executor(self._worker, self._push)

    def _draw(self, result: CameraResult) -> bytes:
        if not self._ended:
            self._last = narrowed(self._painter.paint(result), self._width)
            self._push()
        return b"drawn"

    def _push(self) -> None:
        if self._last is None or self.failure:
            return
        try:
            self.encoder.push(self._last)
        except OutputError as error:
            self.failure = str(error)
            _LOGGER.warning("the web page's video stopped: %s", error)


async def send_video(request: web.Request, clients: Clients, video: Video) -> web.WebSocketResponse:
    """Video over WebRTC until the client leaves.

    The server sends {"kind": "offer", "sdp": ...}, the client its answer, {"sdp": ...}; then frames come over the
    connection that was agreed on. {"kind": "refused", "reason": ...} says why there are none, or no more.
    """
    from aiohttp import web

    socket = web.WebSocketResponse(compress=False, heartbeat=_ALIVE_S, max_msg_size=_LARGEST_ANSWER)
    await socket.prepare(request)
    try:
        async with video.peer() as peer:
            offer = await video.off_loop(peer.offer)
            await clients.in_time(socket.send_json({"kind": "offer", "sdp": offer}))
            answer = await asyncio.wait_for(socket.receive(), video.options.patience)
            reason = ""
            if answer.type is web.WSMsgType.TEXT:
                await video.off_loop(peer.accept, _sdp_of(answer.data))
                reason = await _until_it_ends(socket, video, peer)
    except EdgesegError as error:
        reason = str(error)
    if reason and not socket.closed:
        await clients.in_time(socket.send_json({"kind": "refused", "reason": reason}))
    await clients.in_time(socket.close())
    return socket


def _sdp_of(text: str) -> str:
    """The SDP of a client's message; empty where there is none."""
    try:
        answer = json.loads(text)
    except ValueError:
        return ""
    sdp = answer.get("sdp") if isinstance(answer, dict) else None
    return sdp if isinstance(sdp, str) else ""


async def _until_it_ends(socket: web.WebSocketResponse, video: Video, peer: Peer) -> str:
    """Wait until the client leaves, which gives "", or the connection fails, which gives the reason."""
    loop = asyncio.get_running_loop()
    leaving = asyncio.create_task(_nothing_more(socket))
    connected, end = False, loop.time() + 2 * video.options.patience
    try:
        while not leaving.done():
            state = peer.state
            connected = connected or state == "connected"
            if video.failure:
                return video.failure
            if state in ("failed", "closed") or (not connected and loop.time() > end):
                return "no way for video between the browser and the camera; UDP has to pass between them"
            await asyncio.wait({leaving}, timeout=_LOOK_S)
        return ""
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def _nothing_more(socket: web.WebSocketResponse) -> None:
    """Read until the client leaves; one that says more than its answer is sent away."""
    async for _ in socket:
        await socket.close(code=1008, message=b"expected: one answer")
