"""The newest result of a stream, and its encoded forms, each made once for all who want it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from edgeseg.apps.camera.results import CameraResult

__all__ = ["Encoded", "Newest", "SharedEncoding"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """One encoded result.

    Attributes:
        version: which result it is, counted from 1 as they came.
        content: the bytes; empty where it could not be encoded.
    """

    version: int
    content: bytes


class Newest:
    """Holds the last result that was put and forgets those before; one thread puts, one event loop waits."""

    def __init__(self) -> None:
        self._item: tuple[int, CameraResult | None] = (0, None)
        self._arrived = asyncio.Event()
        self._awaited = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def item(self) -> tuple[int, CameraResult | None]:
        """Version and result; 0 and None before the first."""
        return self._item

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop whose tasks wait."""
        self._loop = loop

    def put(self, result: CameraResult) -> None:
        """Take the place of the result before; the loop is told only where a task waits."""
        self._item = (self._item[0] + 1, result)
        if self._awaited and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                self._loop.call_soon_threadsafe(self._tell)

    async def newer_than(self, version: int) -> tuple[int, CameraResult]:
        """Wait for a result after `version`; the newest one, at once where it is there."""
        while True:
            # Cleared and marked before the look, so that a result that comes after the look wakes this task.
            self._arrived.clear()
            self._awaited = True
            number, result = self._item
            if number > version and result is not None:
                return number, result
            await self._arrived.wait()

    def _tell(self) -> None:
        self._awaited = False
        self._arrived.set()


class SharedEncoding:
    """One form of the newest result, such as the JPEG of its overlay, encoded when somebody asks, once for all."""

    def __init__(
        self, newest: Newest, encode: Callable[[CameraResult], bytes], executor: Executor, interval: float
    ) -> None:
        """Nothing is encoded before the first call of `after`.

        Args:
            newest: where results come from.
            encode: runs in the executor.
            executor: whose thread does the work, outside the event loop.
            interval: least time in seconds from one encode to the next.
        """
        self._newest = newest
        self._encode = encode
        self._executor = executor
        self._interval = interval
        self._last = Encoded(0, b"")
        self._due = 0.0
        self._running: asyncio.Task[None] | None = None

    async def after(self, version: int) -> Encoded:
        """The newest result in this form, once it is newer than `version`."""
        while True:
            if self._last.version > version and self._last.version == self._newest.item[0]:
                return self._last
            if self._running is None:
                self._running = asyncio.create_task(self._next(max(version, self._last.version)))
            # Shielded: the client that asked first may leave while others wait for the same picture.
            await asyncio.shield(self._running)
            if self._last.version > version:
                return self._last

    async def _next(self, version: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._newest.newer_than(version)
            await asyncio.sleep(self._due - loop.time())
            # Looked at again after the pause: the newest then, and not the one that ended the wait.
            number, result = await self._newest.newer_than(version)
            self._due = loop.time() + self._interval
            content = await loop.run_in_executor(self._executor, self._encoded, result)
            self._last = Encoded(number, content)
        finally:
            self._running = None

    def _encoded(self, result: CameraResult) -> bytes:
        try:
            return self._encode(result)
        except Exception as error:  # One broken picture stops neither the page nor its other clients.
            _LOGGER.warning("the web page leaves out frame %d: %s", result.frame.number, error)
            return b""
