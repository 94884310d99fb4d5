"""The queues between captured streams and the one inference thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.errors import UsageError

__all__ = ["Intake"]


class Intake:
    """A short queue for each stream, taken from in turn.

    Args:
        streams: statistics by stream, which count what is dropped.
        length: of each queue.
        lossless: whether a full queue makes the source wait; else its oldest frame gives way.
    """

    def __init__(self, streams: Mapping[str, StreamStatistics], *, length: int = 1, lossless: bool = False) -> None:
        if length < 1:
            raise UsageError(f"the queue holds at least 1 frame, but --queue is {length}")
        self._statistics = dict(streams)
        self._length, self._lossless = length, lossless
        self._queues: dict[str, deque[CameraFrame]] = {name: deque() for name in streams}
        self._turn = deque(streams)
        self._running = set(streams)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, frame: CameraFrame) -> None:
        """Add a frame of a stream."""
        with self._changed:
            queue = self._queues[frame.stream]
            while len(queue) >= self._length and not self._closed:
                if self._lossless:
                    self._changed.wait()
                else:
                    queue.popleft()
                    self._statistics[frame.stream].dropped()
            if self._closed:
                self._statistics[frame.stream].dropped()
                return
            queue.append(frame)
            self._changed.notify_all()

    def take(self) -> CameraFrame | None:
        """The next frame, of the stream whose turn it is where it has one; None when all streams have ended."""
        with self._changed:
            while True:
                for _ in range(len(self._turn)):
                    name = self._turn[0]
                    self._turn.rotate(-1)
                    if self._queues[name]:
                        frame = self._queues[name].popleft()
                        self._changed.notify_all()
                        return frame
                if self._closed or not self._running:
                    return None
                self._changed.wait()

    def ended(self, stream: str) -> None:
        """A stream gives no more frames; what is queued of it is still taken."""
        with self._changed:
            self._running.discard(stream)
            self._changed.notify_all()

    def close(self) -> None:
        """Give no more frames: what is queued counts as dropped, and sources that wait go on."""
        with self._changed:
            self._closed = True
            for name, queue in self._queues.items():
                self._statistics[name].dropped(len(queue))
                queue.clear()
            self._changed.notify_all()
