"""A sink's own thread: `put` returns at once, and what the thread cannot keep up with is left out."""

from __future__ import annotations

import logging
import threading
from collections import deque

from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.errors import EdgesegError, OutputError

__all__ = ["WorkerSink"]

_log = logging.getLogger(__name__)

_WAITING = 2  # results that wait for the thread
_STOPPING = 10.0  # seconds that the thread has to finish what was begun


class WorkerSink:
    """Base of the sinks that do slow work.

    A sink overrides `open`, `work` and `close`, which are called in its own thread.

    Args:
        address: for messages.
        lossless: whether `put` waits for a full queue instead of leaving the oldest result out.
    """

    def __init__(self, address: str, *, lossless: bool = False) -> None:
        self.address = address
        self.left_out = 0
        self._lossless = lossless
        self._waiting: deque[CameraResult] = deque()
        self._changed = threading.Condition()
        self._stopping = self._opened = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def open(self, stream: StreamFacts) -> None:
        """Get ready."""

    def work(self, result: CameraResult) -> None:
        """Take one result; it may last."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish and free everything; called where `open` was."""

    def start(self, stream: StreamFacts) -> None:
        """Start the thread; an error of `open` is raised here."""
        self._thread = threading.Thread(
            target=self._run, args=(stream,), name=f"edgeseg-sink-{self.address}", daemon=True
        )
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._opened)
        self._raise_error()

    def put(self, result: CameraResult) -> None:
        """Take a result, at once."""
        self._raise_error()
        with self._changed:
            while len(self._waiting) >= _WAITING and self._error is None:
                if self._lossless:
                    self._changed.wait(0.5)
                else:
                    self._waiting.popleft()
                    self.left_out += 1
            self._waiting.append(result)
            self._changed.notify_all()
        self._raise_error()

    def stop(self) -> None:
        """Work off what waits and end the thread; one that hangs is left behind."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_STOPPING)
            if self._thread.is_alive():
                raise OutputError(f"{self.address} does not stop; what it held may be lost")
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, stream: StreamFacts) -> None:
        try:
            self.open(stream)
            self._set_opened()
            while (result := self._next()) is not None:
                self.work(result)
        except Exception as error:
            self._fail(error)
        finally:
            try:
                self.close()
            except Exception as error:
                self._fail(error)
            self._set_opened()

    def _fail(self, error: Exception) -> None:
        """Keep the first error for `put` and `stop` to raise."""
        if self._error is not None:
            return
        if not isinstance(error, EdgesegError):
            _log.debug("%s failed", self.address, exc_info=True)
            failed = OutputError(f"{self.address} failed: {type(error).__name__}: {error}")
            failed.__cause__ = error
            error = failed
        self._error = error

    def _set_opened(self) -> None:
        with self._changed:
            self._opened = True
            self._changed.notify_all()

    def _next(self) -> CameraResult | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            result = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return result
