"""What each client is sent while it watches: the newest picture at its own pace, and nothing while it does not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from edgeseg.apps.camera.web.newest import SharedEncoding

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Clients", "send_live", "send_mjpeg"]

_LOGGER = logging.getLogger(__name__)

_STATISTICS_S = 0.5
_ALIVE_S = 20.0
_MOST_CREDITS = 2
"""Pictures on their way to one page: the next leaves when the page has drawn one, so that a slow link gets new pictures
and no queue of old ones."""
_BOUNDARY = b"--frame\r\n"


class Clients:
    """Who watches at the moment.

    Args:
        most: how many may watch at a time.
        patience: seconds after which a client that takes nothing is dropped; it may come back.
    """

    def __init__(self, most: int = 100, patience: float = 5.0) -> None:
        self._most = most
        self._patience = patience
        self._watching: dict[int, web.Request] = {}

    def __len__(self) -> int:
        return len(self._watching)

    async def serve(
        self, request: web.Request, send: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Send to a client until it leaves, or until it is dropped.

        Args:
            request: of the client.
            send: sends, and waits with `in_time`.

        Raises:
            aiohttp.web.HTTPServiceUnavailable: when too many watch.
        """
        from aiohttp import web

        if len(self._watching) >= self._most:
            raise web.HTTPServiceUnavailable(text=f"{self._most} clients watch already\n")
        self._watching[id(request)] = request
        try:
            return await send()
        except asyncio.TimeoutError:
            _LOGGER.warning("the web client %s took nothing for %g s and was dropped", request.remote, self._patience)
            _abort(request)
        except ConnectionError:
            _LOGGER.debug("the web client %s left", request.remote)
        finally:
            del self._watching[id(request)]
        return web.Response(status=204)  # Nobody is there to read it, but aiohttp wants to have an answer.

    async def in_time(self, sending: Awaitable[Any]) -> None:
        """Wait until a client has taken what is sent, to within a bounded rest.

        Raises:
            asyncio.TimeoutError: when its patience is over; `serve` then drops the client.
        """
        if sys.version_info >= (3, 11):
            # Without a task of its own, which for twenty clients would cost as much as what is sent.
            async with asyncio.timeout(self._patience):
                await sending
        else:
            await asyncio.wait_for(sending, self._patience)

    def drop_all(self) -> None:
        """Close every connection at once, without what it was still to be sent."""
        for request in list(self._watching.values()):
            _abort(request)


def _abort(request: web.Request) -> None:
    # A connection that is closed in good order first waits until the client has read what is on its way.
    if request.transport is not None:
        request.transport.abort()


async def send_mjpeg(request: web.Request, clients: Clients, overlay: SharedEncoding) -> web.StreamResponse:
    """The overlay as motion JPEG until the client leaves: an endless `<img>`, or a source for OpenCV and ffmpeg."""
    from aiohttp import web

    response = web.StreamResponse(headers={"Content-Type": "multipart/x-mixed-replace; boundary=frame"})
    await response.prepare(request)
    # The boundary goes after each picture: browsers show a picture when they see where it ends.
    await response.write(_BOUNDARY)
    version = 0
    while True:
        encoded = await overlay.after(version)
        version = encoded.version
        if encoded.content:
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(encoded.content)}\r\n\r\n".encode()
            part = head + encoded.content + b"\r\n" + _BOUNDARY
            await clients.in_time(response.write(part))


async def send_live(
    request: web.Request,
    clients: Clients,
    pictures: SharedEncoding,
    hello: dict[str, Any],
    statistics: Callable[[], Awaitable[str]],
) -> web.WebSocketResponse:
    """Frames, class maps and statistics over a WebSocket until the client leaves.

    The client sends "next" for each picture that it can take. A page that pauses sends none and costs nothing.

    Args:
        request: of the client.
        clients: that it is one of.
        pictures: messages of `live_message`.
        hello: what the page has to know once.
        statistics: gives the text that goes out each half second.
    """
    from aiohttp import web

    socket = web.WebSocketResponse(compress=False, heartbeat=_ALIVE_S, max_msg_size=1024)
    await socket.prepare(request)
    await clients.in_time(socket.send_str(json.dumps({"kind": "hello", **hello})))
    credits: asyncio.Queue[None] = asyncio.Queue(_MOST_CREDITS)
    parts = [
        asyncio.create_task(part)
        for part in (
            _read(socket, credits),
            _send(socket, clients, credits, pictures),
            _report(socket, clients, statistics),
        )
    ]
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
    await clients.in_time(socket.close())
    return socket


async def _read(socket: web.WebSocketResponse, credits: asyncio.Queue[None]) -> None:
    async for message in socket:
        if message.data != "next":
            await socket.close(code=1008, message=b"expected: next")
            return
        with contextlib.suppress(asyncio.QueueFull):
            credits.put_nowait(None)


async def _send(
    socket: web.WebSocketResponse, clients: Clients, credits: asyncio.Queue[None], pictures: SharedEncoding
) -> None:
    version = 0
    while True:
        await credits.get()
        content = b""
        while not content:
            encoded = await pictures.after(version)
            version, content = encoded.version, encoded.content
        await clients.in_time(socket.send_bytes(content))


async def _report(socket: web.WebSocketResponse, clients: Clients, statistics: Callable[[], Awaitable[str]]) -> None:
    while True:
        await clients.in_time(socket.send_str(await statistics()))
        await asyncio.sleep(_STATISTICS_S)
