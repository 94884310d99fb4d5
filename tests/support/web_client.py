"""Clients of the page's server: those that behave, those that never read, and a painter that counts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest
from support.web_page import WAIT_S

from edgeseg.apps.camera.drawing import Painter

aiohttp = pytest.importorskip("aiohttp")

TOKEN = "a token of many characters"
Session = Any


def with_client(sink: Any, steps: Callable[[Session], Awaitable[Any]]) -> Any:
    """Steps of one HTTP client with any number of connections, whose paths begin at the page."""

    async def run() -> Any:
        base = sink.url.partition("?")[0]
        # As a browser does, but for addresses in numbers too.
        jar = aiohttp.CookieJar(unsafe=True)
        timeout = aiohttp.ClientTimeout(WAIT_S)
        async with aiohttp.ClientSession(
            base, cookie_jar=jar, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            return await steps(session)

    return asyncio.run(run())


def answer(sink: Any, path: str, **options: Any) -> tuple[int, str, bytes]:
    """Status, type and body of a GET that follows no redirect."""

    async def get(session: Session) -> tuple[int, str, bytes]:
        async with session.get(path, allow_redirects=False, **options) as response:
            return response.status, response.content_type, await response.read()

    found: tuple[int, str, bytes] = with_client(sink, get)
    return found


def decoded(content: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


async def parts(session: Session, count: int) -> list[bytes]:
    """The first pictures of the motion JPEG."""
    found = []
    async with session.get("/stream.mjpg") as response:
        assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        assert await response.content.readline() == b"--frame\r\n"
        while len(found) < count:
            assert await response.content.readline() == b"Content-Type: image/jpeg\r\n"
            length = int((await response.content.readline()).split(b":")[1])
            assert await response.content.readline() == b"\r\n"
            found.append(await response.content.readexactly(length))
            assert await response.content.readexactly(11) == b"\r\n--frame\r\n"
    return found


class CountingPainter(Painter):
    """Remembers which frames it drew, and fails at every `broken`th."""

    def __init__(self, broken: int = 0) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.broken = broken

    def paint(self, result: Any) -> Any:
        self.numbers.append(result.frame.number)
        if self.broken and len(self.numbers) % self.broken == 0:
            raise ValueError("no ink")
        return super().paint(result)


class SilentClient:
    """Asks, and never reads the answer."""

    def __init__(self, url: str, path: str) -> None:
        port = int(url.split(":")[2].strip("/"))
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        lines = upgrade if path == "/live" else ""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
        if path == "/live":
            # "next" as a masked text frame, again and again: it asks for pictures that it does not read.
            self._socket.sendall(b"\x81\x84\x00\x00\x00\x00next" * 2)
            self._ending = threading.Event()
            threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            while not self._ending.wait(0.01):
                self._socket.sendall(b"\x81\x84\x00\x00\x00\x00next")
        except OSError:
            pass

    def __enter__(self) -> SilentClient:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_ending"):
            self._ending.set()
        self._socket.close()


def server_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-web")]
