"""The camera application without its command line: streams in, one inference thread, results to every sink."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgeseg.apps.camera.capture import Capture, Patience, Source
from edgeseg.apps.camera.intake import Intake
from edgeseg.apps.camera.platform import Platform
from edgeseg.apps.camera.results import CameraFrame, CameraResult, Sink, StreamFacts
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.errors import EdgesegError, OutputError, ShapeError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter

__all__ = ["Live", "LiveOptions", "Stream"]

_log = logging.getLogger(__name__)

Segment = Callable[[NDArray[Any]], Segmentation]
_LEAST_RATE = 1.0
"""Results per second that --max-latency leaves even to a network that is too slow for it."""


@dataclass(frozen=True)
class Stream:
    """A source and where its results go."""

    source: Source
    sinks: tuple[Sink, ...]


@dataclass(frozen=True)
class LiveOptions:
    """How frames are chosen.

    Attributes:
        queue: frames of each stream that wait for the network at most.
        lossless: every frame is segmented and the sources wait; for files.
        every: a frame is segmented when it comes at least this many after the last one.
        max_latency: ms from capture to class map; frames that would exceed it are skipped. None for no limit.
        patience: how long streams are waited for.
    """

    queue: int = 1
    lossless: bool = False
    every: int = 1
    max_latency: float | None = None
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.max_latency is not None and self.max_latency <= 0:
            raise UsageError(f"--max-latency is a number of ms above 0, but is {self.max_latency:g}")


class Live:
    """Captures, segments and hands on until every source has ended or it is stopped.

    Args:
        segment: gives the class map of a frame; a `Segmenter`.
        labels: names and colours of the classes.
        streams: at least one; they are named "0", "1", ... in their order.
        options: how frames are chosen.
        platform: of the machine; None finds out.

    Raises:
        EdgesegError: for a source that this machine cannot capture.
    """

    def __init__(
        self,
        segment: Segment,
        labels: LabelSet,
        streams: Sequence[Stream],
        options: LiveOptions | None = None,
        *,
        platform: Platform | None = None,
    ) -> None:
        self._segment, self._labels = segment, labels
        self._stream = segment.stream if isinstance(segment, Segmenter) else None
        self._options = options or LiveOptions()
        self._streams = {str(number): stream for number, stream in enumerate(streams)}
        self.statistics = {name: StreamStatistics(name) for name in self._streams}
        self._intake = Intake(self.statistics, length=self._options.queue, lossless=self._options.lossless)
        self._captures = {
            name: Capture(
                stream.source,
                name,
                self._intake.put,
                self.statistics[name],
                lambda name=name: self._intake.ended(name),  # type: ignore[misc]
                patience=self._options.patience,
                platform=platform,
            )
            for name, stream in self._streams.items()
        }
        self._sinks: dict[str, list[Sink]] = {name: [] for name in self._streams}
        self._wanted = dict.fromkeys(self._streams, 0)
        self._pace = {name: _Pace(self._options.max_latency, name) for name in self._streams}
        self.sink_errors: list[EdgesegError] = []
        self._error: BaseException | None = None
        self._ready, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._infer, name="edgeseg-inference", daemon=True)

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Work until all sources have ended; Ctrl-C ends it too, with its files closed, and raises KeyboardInterrupt.

        Args:
            tick: called each second.

        Raises:
            EdgesegError: when a sink cannot start, the network fails, or a source does.
        """
        try:
            self.start()
            while not self._done.wait(1.0):
                tick()
        finally:
            self.stop()
        tick()
        self.check()

    def start(self) -> None:
        """Start sinks, then sources.

        Raises:
            EdgesegError: when a sink cannot start; nothing runs then.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self.check()
        for capture in self._captures.values():
            capture.start()

    def stop(self) -> None:
        """End captures, then sinks, which close their files; a second call does nothing."""
        for capture in self._captures.values():
            capture.stop()
        self._intake.close()
        for capture in self._captures.values():
            capture.join()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        """Raise what stopped the inference thread, or else what ended a source."""
        errors = [self._error, *(capture.error for capture in self._captures.values())]
        for error in errors:
            if error is not None:
                raise error

    def _infer(self) -> None:
        try:
            self._start_sinks()
            self._ready.set()
            if self._options.lossless and self._stream is not None:
                self._work_ahead(self._stream)
            else:
                while (frame := self._intake.take()) is not None:
                    self._work(frame)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            for capture in self._captures.values():
                capture.stop()
            self._intake.close()
            self._stop_sinks()
            self._done.set()

    def _work_ahead(self, stream: Callable[[Iterator[NDArray[Any]]], Iterator[Segmentation]]) -> None:
        """Where every frame counts and none is late, several are in the network at once."""
        waiting: deque[CameraFrame] = deque()

        def frames() -> Iterator[NDArray[Any]]:
            while (frame := self._intake.take()) is not None:
                if not self._is_skipped(frame):
                    waiting.append(frame)
                    yield frame.image

        for segmentation in stream(frames()):
            self._finish(waiting.popleft(), segmentation)

    def _is_skipped(self, frame: CameraFrame) -> bool:
        if frame.number < self._wanted[frame.stream] or self._pace[frame.stream].is_late(frame):
            self.statistics[frame.stream].skipped()
            return True
        self._wanted[frame.stream] = frame.number + self._options.every
        return False

    def _work(self, frame: CameraFrame) -> None:
        if self._is_skipped(frame):
            return
        try:
            segmentation = self._segment(frame.image)
        except ShapeError as error:
            self.statistics[frame.stream].failed()
            _log.warning("stream %s: frame %d: %s", frame.stream, frame.number, error)
            return
        self._finish(frame, segmentation)

    def _finish(self, frame: CameraFrame, segmentation: Segmentation) -> None:
        result = CameraResult(frame, segmentation, time.monotonic())
        self._pace[frame.stream].done(result)
        self.statistics[frame.stream].segmented(result)
        self._hand_on(result)

    def _hand_on(self, result: CameraResult) -> None:
        sinks = self._sinks[result.frame.stream]
        for sink in tuple(sinks):
            try:
                sink.put(result)
            except EdgesegError as error:
                sinks.remove(sink)
                self._failed(sink, error)
                self._stop_sink(sink)
        if not sinks and not any(self._sinks.values()):
            raise OutputError("no sink is left; see the messages above")

    def _start_sinks(self) -> None:
        for name, stream in self._streams.items():
            facts = StreamFacts(name, stream.source.public, self._labels, stream.source.rate)
            for sink in stream.sinks:
                sink.start(facts)
                self._sinks[name].append(sink)

    def _stop_sinks(self) -> None:
        for sinks in self._sinks.values():
            while sinks:
                self._stop_sink(sinks.pop())

    def _stop_sink(self, sink: Sink) -> None:
        try:
            sink.stop()
        except EdgesegError as error:
            self._failed(sink, error)

    def _failed(self, sink: Sink, error: EdgesegError) -> None:
        if str(error) not in map(str, self.sink_errors):
            self.sink_errors.append(error)
            _log.error("%s stopped: %s", getattr(sink, "address", type(sink).__name__), error)


class _Pace:
    """Decides which frames are too late for --max-latency, by what the last ones took."""

    def __init__(self, limit: float | None, name: str) -> None:
        self._limit, self._name = limit, name
        self._needed: float | None = None
        self._last = -1.0
        self._captured: float | None = None
        self._interval = 0.0
        self._skipping = self._told = False

    def is_late(self, frame: CameraFrame) -> bool:
        """Whether a frame's class map would come after the limit, and another frame may make it."""
        if self._limit is None or self._needed is None:
            return False
        now = time.monotonic()
        if self._captured is not None:
            self._interval = 0.9 * self._interval + 0.1 * max(1e3 * (frame.captured - self._captured), 0.0)
        self._captured = frame.captured
        age = 1e3 * (now - frame.captured)
        if self._needed > self._limit and not self._told:
            self._told = True
            _log.warning(
                "stream %s: the network alone takes %.0f ms, more than --max-latency %.0f; only fresh frames are taken",
                *(self._name, self._needed, self._limit),
            )
        # A network that is too slow by itself gets the freshest frames, and one a second in any case.
        allowed = max(self._limit - self._needed, min(self._interval, self._limit))
        late = age > allowed and now - self._last < 1 / _LEAST_RATE
        if late and not self._skipping:
            _log.warning("stream %s: skipping frames to keep --max-latency %.0f ms", self._name, self._limit)
        self._skipping = self._skipping or late
        return late

    def done(self, result: CameraResult) -> None:
        """What a frame took."""
        self._last = result.finished
        needed = result.segmentation.timing.total
        self._needed = needed if self._needed is None else 0.8 * self._needed + 0.2 * needed
