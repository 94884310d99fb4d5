"""A pipeline in gst-launch-1.0's words, played to its end."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from types import FrameType
from typing import Any

from edgeseg.apps.camera.element import NAME, register
from edgeseg.apps.camera.elements import PACKAGES, package_of
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.pipeline import error_text
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError, UsageError

__all__ = ["Launched", "launch"]

_log = logging.getLogger(__name__)

_LOOKING = 100_000_000
"""Nanoseconds after which a signal is answered."""

_CORE = ("capsfilter", "concat", "fakesink", "fakesrc", "filesink", "filesrc", "identity", "queue", "tee", "valve")
"""Elements of GStreamer itself."""

_REASONS = {
    "not-negotiated": "; formats or sizes do not fit: put videoconvert or videoscale between",
    "not-linked": "; an element has no sink behind it",
}
"""What the reasons of silent errors mean."""

_SILENT = ("Internal data stream error.", "Internal data flow error.")
"""Errors that say nothing; the reason is at the end of the debug text, such as not-negotiated."""


@dataclass(frozen=True)
class Launched:
    """How a pipeline ended.

    Attributes:
        elements: the statistics of each edgeseg element, by its name.
        seconds: wall time from the first state change.
        interrupted: whether a signal ended it, and not the end of the stream.
    """

    elements: dict[str, dict[str, Any]]
    seconds: float
    interrupted: bool


def launch(description: str, *, eos_on_shutdown: bool = False) -> Launched:
    """Play a pipeline until its end, an error, or SIGINT or SIGTERM.

    Args:
        description: as gst-launch-1.0 takes it.
        eos_on_shutdown: on a signal, send EOS and wait for it, so that files are finished; the stream then counts as
            ended. A second signal stops at once.

    Raises:
        UsageError: for a description that cannot be parsed, or an element that nobody knows.
        MissingDependencyError: without GStreamer, or for an element whose package is not installed.
        EngineError: when an element posts an error.
        KeyboardInterrupt: at the second signal.
    """
    register()
    gst = gstreamer()
    with _without_floating_warning(gst):
        pipeline = _parse(gst, description)
    player = _Player(gst.Gst, pipeline, eos_on_shutdown)
    started = time.monotonic()
    try:
        with player.signals():
            player.play()
        elements = {e.get_name(): _stats(e) for e in _edgeseg_elements(gst.Gst, pipeline)}
    finally:
        pipeline.set_state(gst.Gst.State.NULL)
    return Launched(elements, time.monotonic() - started, player.interrupted)


class _Player:
    """Answers the messages of a pipeline's bus."""

    def __init__(self, gst: Any, pipeline: Any, eos_on_shutdown: bool) -> None:
        self._gst = gst
        self._pipeline = pipeline
        self._bus = pipeline.get_bus()
        self._eos_on_shutdown = eos_on_shutdown
        self._signals = 0
        self._live = False
        self._buffering = False
        self.interrupted = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of raising in the middle of GStreamer's calls into Python."""

        def count(_: int, __: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 1:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def play(self) -> None:
        """Play until EOS or a signal.

        Raises:
            EngineError: with the first error on the bus.
        """
        state = self._gst.StateChangeReturn
        result = self._pipeline.set_state(self._gst.State.PLAYING)
        self._live = result == state.NO_PREROLL
        ending = False
        while True:
            message = self._bus.timed_pop(_LOOKING)
            if message is not None and self._is_last(message):
                return
            if message is None and result == state.FAILURE:
                raise EngineError("the pipeline does not start, and no element says why; run it with GST_DEBUG=3")
            if self._signals and not ending:
                ending = True
                if not self._eos_on_shutdown:
                    self.interrupted = True
                    return
                _log.info("ending the stream; interrupt again to stop at once")
                self._pipeline.send_event(self._gst.Event.new_eos())

    def _is_last(self, message: Any) -> bool:
        kinds = self._gst.MessageType
        if message.type == kinds.EOS:
            return True
        if message.type == kinds.ERROR:
            raise EngineError(_error_line(self._gst, message))
        if message.type == kinds.WARNING:
            problem, _ = message.parse_warning()
            _log.warning("%s: %s", _name(message), problem.message)
        elif message.type == kinds.ELEMENT and message.get_structure().has_name("edgeseg-stats"):
            _log.info("%s: %s", _name(message), message.get_structure().to_string())
        elif message.type == kinds.LATENCY:
            self._pipeline.recalculate_latency()
        elif message.type == kinds.CLOCK_LOST:
            self._pipeline.set_state(self._gst.State.PAUSED)
            self._pipeline.set_state(self._gst.State.PLAYING)
        elif message.type == kinds.REQUEST_STATE:
            self._pipeline.set_state(message.parse_request_state())
        elif message.type == kinds.BUFFERING and not self._live:
            buffering = message.parse_buffering() < 100
            if buffering != self._buffering:
                self._buffering = buffering
                self._pipeline.set_state(self._gst.State.PAUSED if buffering else self._gst.State.PLAYING)
        return False


def _parse(gst: Any, description: str) -> Any:
    context = gst.Gst.ParseContext.new()
    try:
        parsed = gst.Gst.parse_launch_full(description, context, gst.Gst.ParseFlags.FATAL_ERRORS)
    except gst.GLib.Error as error:
        if error.matches(gst.Gst.ParseError.quark(), int(gst.Gst.ParseError.NO_SUCH_ELEMENT)):
            raise _missing((context.get_missing_elements() or [error.message])[0]) from error
        raise UsageError(f"the pipeline cannot be understood: {error.message}") from error
    if isinstance(parsed, gst.Gst.Pipeline):
        return parsed
    pipeline = gst.Gst.Pipeline.new(None)
    pipeline.add(parsed)
    return pipeline


def _missing(name: str) -> EdgesegError:
    package = package_of(name)
    if package is not None:
        return MissingDependencyError(f"the GStreamer element {name}", "play this", f"sudo apt-get install {package}")
    near = get_close_matches(name, [NAME, *_CORE, *itertools.chain.from_iterable(PACKAGES.values())], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UsageError(f"unknown GStreamer element {name!r}; {hint}gst-inspect-1.0 lists those that are installed")


def _error_line(gst: Any, message: Any) -> str:
    """An error as one line: the element, its text, and the reason where the text has none."""
    problem, debug = message.parse_error()
    if isinstance(message.src, gst.Element) and _is_edgeseg(message.src):
        return f"{_name(message)}: {problem.message}"
    if debug and problem.message in _SILENT:
        reason = debug.strip().splitlines()[-1]
        hint = next((hint for words, hint in _REASONS.items() if words in reason), "")
        return f"{_name(message)}: {reason}{hint}"
    return str(error_text(message))


def _name(message: Any) -> str:
    return message.src.get_name() if message.src is not None else "pipeline"


def _edgeseg_elements(gst: Any, pipeline: Any) -> list[Any]:
    found: list[Any] = []
    iterator = pipeline.iterate_recurse()
    while (step := iterator.next())[0] == gst.IteratorResult.OK:
        if _is_edgeseg(step[1]):
            found.append(step[1])
    return sorted(found, key=lambda element: str(element.get_name()))


def _is_edgeseg(element: Any) -> bool:
    factory = element.get_factory()
    return factory is not None and factory.get_name() == NAME


def _stats(element: Any) -> dict[str, Any]:
    structure = element.get_property("stats")
    names = [structure.nth_field_name(index) for index in range(structure.n_fields())]
    return {name: structure.get_value(name) for name in names}


@contextlib.contextmanager
def _without_floating_warning(gst: Any) -> Iterator[None]:
    """Leave out what GStreamer says of every element in Python under PyGObject 3.42, and which means nothing."""

    def handle(domain: str, level: Any, text: str, *_: Any) -> None:
        if "should be floating" not in text:
            gst.GLib.log_default_handler(domain, level, text, None)

    number = gst.GLib.log_set_handler("GStreamer", gst.GLib.LogLevelFlags.LEVEL_CRITICAL, handle, None)
    try:
        yield
    finally:
        gst.GLib.log_remove_handler("GStreamer", number)
