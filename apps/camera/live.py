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
from edgeseg.apps.camera.pace import NetworkChoice, Pace
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
        max_latency: ms from capture to class map; frames that would exceed it are skipped, and where that does not
            help a smaller network takes over, if there is one. None for no limit.
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
        smaller: networks of the same classes that take over, one after the other, while `segment` is too slow for
            `options.max_latency`; the largest first.
        platform: of the machine; None finds out.

    Raises:
        EdgesegError: for a source that this machine cannot capture, or smaller networks that could never take over or
            have other classes.
    """

    def __init__(
        self,
        segment: Segment,
        labels: LabelSet,
        streams: Sequence[Stream],
        options: LiveOptions | None = None,
        *,
        smaller: Sequence[Segment] = (),
        platform: Platform | None = None,
    ) -> None:
        self._networks, self._labels = (segment, *smaller), labels
        self._stream = segment.stream if isinstance(segment, Segmenter) else None
        self._options = options or LiveOptions()
        _check_smaller(smaller, labels, self._options)
        self.network = NetworkChoice(_names(self._networks), self._options.max_latency)
        self._streams = {str(number): stream for number, stream in enumerate(streams)}
        self.statistics = {name: StreamStatistics(name) for name in self._streams}
        self._intake = Intake(self.statistics, length=self._options.queue, lossless=self._options.lossless)
        self._captures = {
            name: Capture(
                stream.source,
                name,
                self._intake.put,
                self.statistics[name],
                lambda name=name: self._ended(name),  # type: ignore[misc]
                patience=self._options.patience,
                platform=platform,
            )
            for name, stream in self._streams.items()
        }
        self._sinks: dict[str, list[Sink]] = {name: [] for name in self._streams}
        self._wanted = dict.fromkeys(self._streams, 0)
        self._pace = {name: Pace(self._options.max_latency, name) for name in self._streams}
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

    def _ended(self, name: str) -> None:
        error = self._captures[name].error
        if error is not None and len(self._streams) > 1:
            # It is raised when all streams have ended, which may be hours later.
            _log.error("stream %s ended: %s", name, error)
        self._intake.ended(name)

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

    def _work_ahead(self, stream: Callable[[Iterator[Any]], Iterator[Segmentation]]) -> None:
        """Where every frame counts and none is late, several are in the network at once."""
        waiting: deque[CameraFrame] = deque()

        def frames() -> Iterator[Any]:
            while (frame := self._intake.take()) is not None:
                if not self._is_skipped(frame):
                    waiting.append(frame)
                    yield frame.pixels

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
        network = self._networks[self.network.level]
        try:
            # A segmenter takes what the decoder gave; a program's own function takes RGB.
            segmentation = network(frame.pixels) if isinstance(network, Segmenter) else network(frame.image)
        except ShapeError as error:
            self.statistics[frame.stream].failed()
            _log.warning("stream %s: frame %d: %s", frame.stream, frame.number, error)
            return
        self._finish(frame, segmentation)

    def _finish(self, frame: CameraFrame, segmentation: Segmentation) -> None:
        result = CameraResult(frame, segmentation, time.monotonic())
        self._pace[frame.stream].done(result)
        if self.network.done(result):
            for pace in self._pace.values():
                pace.network_changed()
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


def _names(networks: Sequence[Segment]) -> list[str]:
    """What people call them: the size of their input, HEIGHTxWIDTH, where it is known."""
    names: list[str] = []
    for number, network in enumerate(networks):
        entry = network.bundle.manifest.input if isinstance(network, Segmenter) else None
        name = f"{entry.height}x{entry.width}" if entry else f"network {number}"
        names.append(f"{name} ({number})" if name in names else name)
    return names


def _check_smaller(smaller: Sequence[Segment], labels: LabelSet, options: LiveOptions) -> None:
    """Refuse networks that could never take over, or whose class maps mean something else."""
    if smaller and (options.max_latency is None or options.lossless):
        raise UsageError(
            "a smaller network takes over where --max-latency is not kept, so it needs --max-latency, and frames at "
            "their own pace (--realtime)"
        )
    for network in smaller:
        if isinstance(network, Segmenter) and network.labels.names != labels.names:
            raise UsageError(
                f"{network.bundle.path} has the classes {', '.join(network.labels.names)}, but the first network has "
                f"{', '.join(labels.names)}; a smaller network needs the same ones"
            )
