"""What the element says on the bus: errors as one line, and its statistics."""

from __future__ import annotations

import time
import traceback
from dataclasses import replace
from typing import Any

from edgeseg.apps.camera.element.stage import Counts
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.errors import BundleError, EdgesegError, LabelError, UsageError

__all__ = ["STATS", "Ticker", "post_error", "stats_structure"]

STATS = "edgeseg-stats"
"""Name of the structure in the element's messages and in its property `stats`."""


def post_error(element: Any, error: BaseException) -> None:
    """Post an error: the message of a known one as it is, a bug of edgeseg's with its traceback as debug text."""
    gst = gstreamer()
    Gst = gst.Gst  # noqa: N806 - the module's own name
    if isinstance(error, BundleError):
        domain, code = Gst.ResourceError.quark(), int(Gst.ResourceError.OPEN_READ)
    elif isinstance(error, (UsageError, LabelError)):
        domain, code = Gst.LibraryError.quark(), int(Gst.LibraryError.SETTINGS)
    else:
        domain, code = Gst.StreamError.quark(), int(Gst.StreamError.FAILED)
    if isinstance(error, EdgesegError):
        text, debug = " ".join(str(error).split()), type(error).__name__
    else:
        text = f"a bug in edgeseg: {type(error).__name__}: {error}; please report it with the debug text"
        debug = "".join(traceback.format_exception(error))
    problem = gst.GLib.Error.new_literal(domain, text, code)
    element.post_message(Gst.Message.new_error(element, problem, debug))


def stats_structure(counts: Counts, before: Counts | None = None) -> Any:
    """The statistics as a Gst.Structure: counts since the start, and means since `before`.

    Args:
        counts: now.
        before: at the last message; None for means since the start.
    """
    gst = gstreamer()
    before = before or Counts()
    frames, segmented = counts.frames - before.frames, counts.segmented - before.segmented
    seconds = counts.seconds - before.seconds
    structure = gst.Gst.Structure.new_empty(STATS)
    for name, kind, value in (
        ("frames", gst.GObject.TYPE_UINT64, counts.frames),
        ("segmented", gst.GObject.TYPE_UINT64, counts.segmented),
        ("late", gst.GObject.TYPE_UINT64, counts.late),
        ("inference-ms", float, (counts.inference - before.inference) / segmented if segmented else 0.0),
        ("frame-ms", float, (counts.work - before.work) / frames if frames else 0.0),
        ("fps", float, frames / seconds if seconds else 0.0),
    ):
        structure.set_value(name, gst.GObject.Value(kind, value))
    return structure


class Ticker:
    """Posts the statistics of an element once a second, while frames come."""

    def __init__(self, element: Any) -> None:
        self._element = element
        self._since = time.monotonic()
        self._before = Counts()

    def tick(self, counts: Counts, *, now: bool = False) -> None:
        """Post them when a second is over, or at once."""
        moment = time.monotonic()
        if moment - self._since < 1 and not now:
            return
        structure = stats_structure(counts, self._before)
        self._since, self._before = moment, replace(counts)
        self._element.post_message(gstreamer().Gst.Message.new_element(self._element, structure))
