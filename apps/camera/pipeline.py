"""A running GStreamer pipeline that ends in an appsink: its frames with their capture times, and how it ended."""

from __future__ import annotations

import collections
import ctypes
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.pixels import TAKEN, FrameReader
from edgeseg.apps.camera.sources import ARRIVALS, FRAMES, PYTHON_FRAMES
from edgeseg.apps.camera.yuv import YuvFrame, warm_up
from edgeseg.errors import EdgesegError, UsageError

__all__ = ["Arrival", "Ending", "Pipeline", "error_text"]

_log = logging.getLogger(__name__)

_LOOKING = 50_000_000  # nanoseconds that a wait for a frame lasts before the bus is looked at
_FREEING = 2.0  # seconds that a pipeline has to stop; one that hangs is left to its thread

_HINTS = {
    "Failed to create CaptureSession": "the camera's service holds it: sudo systemctl restart nvargus-daemon",
    "Cannot identify device": "see what is there with: ls /dev/video*",
    "not-linked": "the stream has another codec; give --input-codec h264, h265 or mjpeg",
    "not-negotiated": "the camera has no such size or rate; see what it has with: v4l2-ctl --list-formats-ext",
    "nauthorized": "write it as rtsp://USER:PASSWORD@HOST/PATH",
}
"""What to do, by words of GStreamer's errors."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """A frame out of the pipeline.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, or a frame in I420 or NV12; memory of its own.
        gap: frames that came before it and were left out in the pipeline, or broken.
        captured: `time.monotonic()` of its capture.
    """

    pixels: NDArray[np.uint8] | YuvFrame
    gap: int
    captured: float


@dataclass(frozen=True)
class Ending:
    """How a pipeline ended.

    Attributes:
        reason: "end" of the stream, "error", "hang", or "stopped" by us.
        text: for people.
        gap: frames after the last one taken that were left out.
    """

    reason: str
    text: str = ""
    gap: int = 0


def error_text(message: Any) -> str:
    """One line of GStreamer's error message, with what to do where that is known."""
    error, detail = message.parse_error()
    found = f"{error.message} {detail or ''}"
    hint = next((hint for words, hint in _HINTS.items() if words in found), None)
    source = message.src.get_name() if message.src is not None else "pipeline"
    text = f"{error.message.rstrip('.')} ({source})"
    return f"{text}; {hint}" if hint else text


class Pipeline:
    """One run of a launch string; made anew for every connection.

    Args:
        launch: see `sources.launch_string`.
        live: whether capture times are asked of the pipeline's clock; else a frame counts as captured when it is taken.
        loop: times that it starts again at its end, -1 for ever.
    """

    def __init__(self, launch: str, *, live: bool, loop: int = 0) -> None:
        gst = gstreamer()
        self._gst = gst.Gst
        self._live, self._loop = live, loop
        try:
            self._pipeline = self._gst.parse_launch(launch)
        except gst.GLib.Error as error:
            raise _parse_error(error, launch) from error
        self._sink = _only_appsink(self._gst, self._pipeline)
        self.python_source = self._pipeline.get_by_name(PYTHON_FRAMES)
        self._bus = self._pipeline.get_bus()
        kinds = self._gst.MessageType
        self._looked_for = kinds.ERROR | kinds.EOS | kinds.SEGMENT_DONE | kinds.WARNING | kinds.LATENCY
        self._read = FrameReader()
        if TAKEN in launch:
            warm_up()
        self._arrived: collections.deque[int] = collections.deque()
        if self._leaves_out():
            self._count_arrivals()
        self._carried = 0
        self.broken = 0

    def frames(self, stop: threading.Event, patience: float) -> Iterator[Arrival | Ending]:
        """Play: every frame as it comes, and an `Ending` as the last value.

        Args:
            stop: ends it.
            patience: seconds without a frame that count as a hang; 0 for no limit.
        """
        ending = self._start()
        last = time.monotonic()
        while ending is None:
            if stop.is_set():
                ending = Ending("stopped")
                break
            sample = self._sink.try_pull_sample(_LOOKING)
            if sample is not None:
                arrival = self._arrival(sample)
                last = time.monotonic()
                if arrival is not None:
                    del sample  # its memory goes back to the pipeline before the frame is worked on
                    yield arrival
                    last = time.monotonic()  # the receiver may have taken its time
            # With its samples taken, a pipeline posts the end of its stream; what came before it is all here.
            ending = self._look_at_bus()
            if ending is None and patience and time.monotonic() - last > patience:
                ending = Ending("hang", f"no frame for {patience:g} s")
        yield ending

    def stop(self) -> None:
        """Free the pipeline; one that does not stop (a server that hangs) is left to a thread."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        self._sink = self._bus = self.python_source = None

        def free(pipeline: Any) -> None:
            pipeline.set_state(self._gst.State.NULL)
            _return_memory()

        thread = threading.Thread(target=free, args=(pipeline,), name="edgeseg-stop", daemon=True)
        thread.start()
        thread.join(_FREEING)
        if thread.is_alive():
            _log.info("a pipeline does not stop; going on without it")

    def _start(self) -> Ending | None:
        playing, paused = self._gst.State.PLAYING, self._gst.State.PAUSED
        if self._loop and self.python_source is None:
            self._pipeline.set_state(paused)
            self._pipeline.get_state(5 * self._gst.SECOND)
            flags = self._gst.SeekFlags.FLUSH | self._gst.SeekFlags.SEGMENT
            self._seek(self._pipeline, flags)
        if self._pipeline.set_state(playing) == self._gst.StateChangeReturn.FAILURE:
            return self._look_at_bus() or Ending("error", "the pipeline does not start")
        return None

    def _seek(self, pipeline: Any, flags: Any) -> None:
        kind = self._gst.SeekType
        if not pipeline.seek(1.0, self._gst.Format.TIME, flags, kind.SET, 0, kind.NONE, 0):
            _log.warning("this source cannot start again at its end; --input-loop does nothing")

    def _look_at_bus(self) -> Ending | None:
        kinds = self._gst.MessageType
        while (message := self._bus.pop_filtered(self._looked_for)) is not None:
            if message.type == kinds.ERROR:
                return Ending("error", error_text(message))
            if message.type == kinds.EOS:
                return Ending("end", "the stream ended", self._carried + len(self._arrived))
            if message.type == kinds.SEGMENT_DONE:
                self._again()
            elif message.type == kinds.LATENCY:
                self._pipeline.recalculate_latency()
            elif message.type == kinds.WARNING:
                _log.debug("GStreamer: %s", message.parse_warning()[0].message)
        return None

    def _again(self) -> None:
        self._loop -= self._loop > 0
        # Without a flush no frame is lost between two rounds; the last one ends as a stream does. Such a seek waits
        # for frames that wait to be taken here, so it has a thread of its own.
        flags = self._gst.SeekFlags.SEGMENT if self._loop else self._gst.SeekFlags.NONE
        threading.Thread(target=self._seek, args=(self._pipeline, flags), name="edgeseg-loop", daemon=True).start()

    def _leaves_out(self) -> bool:
        """Whether frames can be left out on the way, which must then be counted: a call from C to Python for each."""
        queue = self._pipeline.get_by_name(ARRIVALS)
        drops = bool(self._sink.get_property("drop"))
        return drops or queue is None or queue.get_property("leaky").value_nick != "no"

    def _count_arrivals(self) -> None:
        """Remember the time stamp of every frame before any is left out."""
        arrived = self._arrived

        def seen(pad: Any, info: Any) -> Any:
            arrived.append(info.get_buffer().pts)
            return keep

        def flushed(pad: Any, info: Any) -> Any:
            arrived.clear()
            return keep

        keep, kinds = self._gst.PadProbeReturn.OK, self._gst.PadProbeType
        pad = (self._pipeline.get_by_name(ARRIVALS) or self._sink).get_static_pad("sink")
        pad.add_probe(kinds.BUFFER, seen)
        pad.add_probe(kinds.EVENT_FLUSH, flushed)

    def _gap(self, stamp: int) -> int:
        """Frames that arrived before the one of this time stamp and were left out."""
        gap = 0
        while self._arrived:
            if self._arrived.popleft() == stamp:
                break
            gap += 1
        return gap

    def _arrival(self, sample: Any) -> Arrival | None:
        """The frame in a sample; None for a broken one, which is counted."""
        now = time.monotonic()
        buffer = sample.get_buffer()
        gap, self._carried = self._carried + self._gap(buffer.pts), 0
        try:
            pixels = self._read(sample)
        except EdgesegError as error:
            self.broken += 1
            self._carried = gap + 1
            _log.debug("broken frame: %s", error)
            return None
        return Arrival(pixels, gap, self._captured(sample, buffer, now))

    def _captured(self, sample: Any, buffer: Any, now: float) -> float:
        """When a frame was captured: its time stamp on the pipeline's clock, brought to time.monotonic()."""
        clock = self._pipeline.get_clock() if self._live else None
        if clock is None or buffer.pts == self._gst.CLOCK_TIME_NONE:
            return now
        running = sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
        age = (clock.get_time() - self._pipeline.get_base_time() - running) / self._gst.SECOND
        return now - max(float(age), 0.0)


def _return_memory() -> None:
    """Give what a pipeline's many threads have freed back to the system, which glibc keeps by thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _parse_error(error: Any, launch: str) -> EdgesegError:
    text = error.message
    if "no element" in text:
        from edgeseg.apps.camera.elements import package_of

        name = text.partition('"')[2].partition('"')[0]
        package = package_of(name)
        cure = f"; run: sudo apt-get install -y {package}" if package else "; see: gst-inspect-1.0"
        return UsageError(f"GStreamer has no element {name!r} on this machine{cure}")
    return UsageError(f"GStreamer does not understand the pipeline ({text}): {launch}")


def _only_appsink(gst: Any, pipeline: Any) -> Any:
    named = pipeline.get_by_name(FRAMES) if isinstance(pipeline, gst.Bin) else None
    if named is not None:
        return named
    sinks = []
    if isinstance(pipeline, gst.Bin):
        found = pipeline.iterate_sinks()
        while (step := found.next())[0] == gst.IteratorResult.OK:
            if step[1].get_factory().get_name() == "appsink":
                sinks.append(step[1])
    if len(sinks) != 1:
        raise UsageError(f"a pipeline needs one appsink for its frames, but this has {len(sinks)}; name it {FRAMES}")
    return sinks[0]
