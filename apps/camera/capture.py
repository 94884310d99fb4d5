"""The thread that captures one stream, and brings it back when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgeseg.apps.camera.feed import Feed, frames_of, rate_of
from edgeseg.apps.camera.pipeline import Arrival, Ending, Pipeline
from edgeseg.apps.camera.platform import Platform, find_platform
from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.sources import SourceOptions, launch_string, public_address, source_kind
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.errors import EdgesegError, FrameError

__all__ = ["Capture", "Patience", "Source"]

_log = logging.getLogger(__name__)

_CAMERAS = ("csi", "v4l2", "rtsp")


@dataclass(frozen=True)
class Patience:
    """How long a stream is waited for, seconds.

    Attributes:
        frame: without a frame, after which a live stream counts as hung.
        start: without a first frame, after which the application gives up; for a file, without any frame.
        retry: before the first attempt to bring a stream back; doubled with each until `most`.
        most: between two attempts.
    """

    frame: float = 3.0
    start: float = 10.0
    retry: float = 0.25
    most: float = 0.5


@dataclass(frozen=True)
class Source:
    """What is captured.

    Attributes:
        address: see docs/camera.md; "appsrc://" for frames of the program's own.
        options: how it is captured.
        frames: gives the program's own frames, (H, W, 3) uint8 RGB, from their start; None for an address.
    """

    address: str
    options: SourceOptions = SourceOptions()  # noqa: RUF009  (frozen)
    frames: Callable[[], Iterable[NDArray[Any]]] | None = None

    @property
    def is_camera(self) -> bool:
        """Whether the end of its stream means that it is lost."""
        kind = source_kind(self.address)
        endless_test = kind == "test" and self.options.count is None
        return self.options.live and (kind in _CAMERAS or endless_test)

    @property
    def public(self) -> str:
        """The address without a password."""
        return public_address(self.address)

    @property
    def rate(self) -> float | None:
        """Frames per second, where they are known before the first."""
        if self.options.rate is not None:
            return self.options.rate
        kind = source_kind(self.address)
        if kind == "frames" and self.frames is None:
            return rate_of(self.address)
        return {"csi": 30.0, "v4l2": 30.0, "test": 30.0}.get(kind)


class Capture:
    """Captures one stream in a thread of its own.

    Args:
        source: what is captured.
        name: of the stream.
        deliver: takes each frame; it may wait where frames are not to be left out.
        statistics: of the stream.
        ended: called once at the end, whatever its reason; `error` then says whether it was one.
        patience: how long it is waited for.
        platform: of the machine; None finds out.

    Raises:
        EdgesegError: when the source is none, or cannot be captured on this machine.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        deliver: Callable[[CameraFrame], None],
        statistics: StreamStatistics,
        ended: Callable[[], None],
        *,
        patience: Patience | None = None,
        platform: Platform | None = None,
    ) -> None:
        self.source, self.name = source, name
        self.error: EdgesegError | Exception | None = None
        self._deliver, self._statistics, self._ended = deliver, statistics, ended
        self._patience = patience or Patience()
        self._launch = launch_string(source.address, source.options, platform or find_platform())
        self._frames = source.frames
        if self._frames is None and source_kind(source.address) == "frames":
            if source.address.startswith("appsrc:"):
                raise FrameError("appsrc:// takes the frames of a program: give them as Source.frames in Python")
            self._frames = frames_of(source.address)
        self._stop = threading.Event()
        self._next = 0
        self._lost_since: float | None = None
        self._size: tuple[int, ...] | None = None
        self._thread = threading.Thread(target=self._run, name=f"edgeseg-capture-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; see `join`."""
        self._stop.set()

    def join(self, seconds: float = 10.0) -> None:
        """Wait until it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._capture()
        except EdgesegError as error:
            self.error = error
        except Exception as error:
            self.error = error
            _log.exception("stream %s: capture failed", self.name)
        finally:
            self._ended()

    def _capture(self) -> None:
        began, wait = time.monotonic(), self._patience.retry
        # At its own pace a video starts anew for each round; otherwise its pipeline goes back without a gap.
        options = self.source.options
        rounds = options.loop if options.live and source_kind(self.source.address) == "video" else 0
        while True:
            before = self._next
            ending = self._play()
            if ending.reason == "end" and rounds and self._next > before:
                rounds -= rounds > 0
                continue
            if ending.reason == "stopped" or (ending.reason == "end" and not self.source.is_camera):
                return
            if not self.source.is_camera:
                raise FrameError(f"cannot capture {self.source.public}: {ending.text}")
            if self._next == 0 and time.monotonic() - began > self._patience.start:
                raise FrameError(f"{self.source.public} gives no frame: {ending.text}")
            if self._next > before:
                wait = self._patience.retry
            self._lost(ending, first=self._next == 0)
            if self._stop.wait(wait):
                return
            wait = min(2 * wait, self._patience.most)

    def _play(self) -> Ending:
        """One connection, until it ends."""
        options = self.source.options
        loop = options.loop if source_kind(self.source.address) == "video" and not options.live else 0
        pipeline = Pipeline(self._launch, live=options.live, loop=loop)
        feed: Feed | None = None
        try:
            feed = self._feed(pipeline)
            for event in pipeline.frames(self._stop, self._limit()):
                if isinstance(event, Ending):
                    self._next += event.gap
                    self._statistics.arrived(0, event.gap - pipeline.broken, pipeline.broken)
                    if feed is not None and feed.error is not None:
                        raise feed.error
                    return event
                self._take(event, pipeline)
        finally:
            pipeline.stop()
            if feed is not None:
                feed.stop()
        return Ending("stopped")

    def _limit(self) -> float:
        """Seconds without a frame that end a connection; a program's own frames take the time that they take."""
        if self.source.is_camera:
            return self._patience.frame
        # A file without a picture in it may end without a word.
        return self._patience.start if source_kind(self.source.address) == "video" else 0.0

    def _feed(self, pipeline: Pipeline) -> Feed | None:
        if self._frames is None:
            return None
        options, own = self.source.options, self.source.frames is not None
        rate = None if own else options.rate or rate_of(self.source.address)
        return Feed(pipeline.python_source, self._frames, rate, live=options.live, loop=options.loop)

    def _take(self, arrival: Arrival, pipeline: Pipeline) -> None:
        if self._lost_since is not None:
            self._statistics.reconnected()
            away = time.monotonic() - self._lost_since
            _log.warning("stream %s: %s is back after %.1f s", self.name, self.source.public, away)
            self._lost_since = None
        if arrival.pixels.shape != self._size:
            if self._size is not None:
                sizes = [f"{size[1]}x{size[0]}" for size in (self._size, arrival.pixels.shape)]
                _log.warning("stream %s: frames are now %s instead of %s", self.name, sizes[1], sizes[0])
            self._size = arrival.pixels.shape
        broken, pipeline.broken = pipeline.broken, 0
        number = self._next + arrival.gap
        self._next = number + 1
        self._statistics.arrived(1, arrival.gap - broken, broken)
        self._deliver(CameraFrame(arrival.pixels, number, arrival.captured, self.name))

    def _lost(self, ending: Ending, *, first: bool) -> None:
        if first:
            _log.info("stream %s: %s is not there yet: %s", self.name, self.source.public, ending.text)
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
            _log.warning("stream %s: %s is lost (%s); connecting again", self.name, self.source.public, ending.text)
        else:
            _log.debug("stream %s: %s", self.name, ending.text)
